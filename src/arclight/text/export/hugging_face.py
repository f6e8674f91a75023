"""A tagger as the directory that AutoModelForTokenClassification and pipeline("token-classification") load."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from tokenizers import Tokenizer
from torch import Tensor, nn

from arclight.errors import InputError, first_line
from arclight.export.program import Call, Tensors
from arclight.text.info import TokenInfo


def save_token_classifier(
    module: LightningModule, info: TokenInfo, directory: Path, at_words: Callable[[Tensor, Tensor], Tensor]
) -> Call:
    """Writes weights, config and tokenizer, and returns what computes the logits of words with the loaded model.

    Args:
        module: its `net` has an `encoder` of transformers and a linear `head`.
        info: labels and tokenizer.
        directory: that is written.
        at_words: returns the logits of words from those of subwords and the first subwords.

    Raises:
        InputError: when the net has other parts, or transformers has no tagger with this encoder.
    """
    from transformers import AutoModelForTokenClassification, PreTrainedModel

    net = getattr(module, "net", None)
    encoder, head = getattr(net, "encoder", None), getattr(net, "head", None)
    if not isinstance(encoder, PreTrainedModel) or not isinstance(head, nn.Linear):
        raise InputError(
            f"--format huggingface: {type(net).__name__} does not consist of an `encoder` of transformers and a linear `head`; "
            "set --format onnx, torch_export or safetensors"
        )
    config = copy.deepcopy(encoder.config)
    config.id2label = dict(enumerate(info.labels))
    config.label2id = {label: number for number, label in enumerate(info.labels)}
    try:
        model = AutoModelForTokenClassification.from_config(config)
        getattr(model, model.base_model_prefix).load_state_dict(encoder.state_dict())
        model.classifier.load_state_dict(head.state_dict())
    except (ValueError, RuntimeError, AttributeError) as error:
        raise InputError(
            f"--format huggingface: transformers has no tagger of this kind for a '{config.model_type}' encoder: "
            f"{first_line(error)}"
        ) from error
    model.save_pretrained(directory)
    tokenizer_of(info).save_pretrained(directory)
    loaded = AutoModelForTokenClassification.from_pretrained(directory).eval()

    def run(inputs: Tensors) -> Tensors:
        input_ids, attention_mask, word_starts = inputs
        with torch.inference_mode():
            return (at_words(loaded(input_ids=input_ids, attention_mask=attention_mask).logits, word_starts),)

    return run


def tokenizer_of(info: TokenInfo) -> Any:
    """Returns the tokenizer of the data info as one of transformers, with its special tokens."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer.from_str(info.tokenizer)
    ends = tokenizer.encode("").tokens  # such as [CLS] [SEP]
    names = {"pad_token": tokenizer.id_to_token(info.pad_id), "unk_token": getattr(tokenizer.model, "unk_token", None)}
    if len(ends) == 2:
        names |= {"cls_token": ends[0], "sep_token": ends[1]}
    given = {name: token for name, token in names.items() if token is not None}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=info.max_length, **given)
