"""Token classification: a pretrained (or small random) BERT-like encoder, dropout, and one linear layer."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from arclight.errors import InputError
from arclight.hardware import Decision
from arclight.interfaces import PreflightContext
from arclight.modules.dropout import Dropout, check_dropout, replace_dropout
from arclight.text.attention import PACKED, choose_attention, inputs_of, register, set_attention_dropout
from arclight.text.info import TokenInfo
from arclight.text.pretrained import ENCODER_FILES, cached_commit, check_directory, load_pretrained, loading_errors, log_commit
from arclight.text.random_encoder import check_bert_sizes, encoder_from_config, small_bert, without_pooler
from project.pinned_revisions import pinned_revision

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class BertTagger(nn.Module):
    """Computes the logits of each subword's label.

    Attributes:
        encoder: the transformers model, in float32 and in training mode.
        num_layers: of the encoder.
        blueprint: overrides of the settings with which this net is rebuilt on a machine without the checkpoint's files:
            `BertTagger(data_info, **{**settings, **net.blueprint})`, then `load_state_dict`. Plain values.

    Args:
        data_info: metadata of the text.
        checkpoint: any encoder of transformers.AutoModel: a name on the Hugging Face hub or a directory. None builds a small
            random BERT. Code of a checkpoint is never run.
        dropout: of the encoder's outputs before the last layer, 0 to below 1; also inside the random BERT (a pretrained encoder
            keeps its own).
        revision: commit, tag or branch of a name on the hub; None is the commit in `pinned_revisions`, else the newest. The
            commit that was loaded is in `blueprint`.
        num_hidden_layers: layers of the random BERT; an encoder from a checkpoint has its own sizes.
        hidden_size: of the random BERT; divisible by `num_attention_heads`.
        num_attention_heads: attention heads in each layer of the random BERT.
        encoder: config of the encoder, as in `blueprint`; `checkpoint` is then not loaded and the weights are random.
        gradient_checkpointing: recompute each layer in the backward pass: some 30 % more time, much less memory.
        attention_dropout: 0 to below 1; None is the encoder's own. With 0, packed rows in half precision use a faster CUDA
            kernel.

    Raises:
        InputError: when the checkpoint cannot be loaded or is not a text encoder, when the tokenizer or `data.max_length` does
            not fit it, or when a setting is out of range.

    Source:
        Devlin, Chang, Lee, Toutanova, "BERT: Pre-training of deep bidirectional transformers", NAACL 2019, section 5.3:
        no CRF, and each word is tagged by its first subword. The linear layer starts as the encoder's own did: N(0,
        initializer_range), bias 0.
    """

    def __init__(
        self,
        data_info: TokenInfo,
        *,
        checkpoint: str | None,
        revision: str | None = None,
        dropout: float = 0.1,
        num_hidden_layers: int = 2,
        hidden_size: int = 128,
        num_attention_heads: int = 2,
        encoder: Mapping[str, Any] | None = None,
        gradient_checkpointing: bool = False,
        attention_dropout: float | None = None,
    ) -> None:
        super().__init__()
        check_dropout({"dropout": dropout, "attention_dropout": attention_dropout})
        if encoder is not None:
            self.encoder = encoder_from_config(encoder)
        elif checkpoint is not None:
            requested = pinned_revision(checkpoint, revision)
            self.encoder = _pretrained(checkpoint, requested, attention_dropout)
            revision = cached_commit(checkpoint, requested)
            log_commit(checkpoint, requested, revision)
        else:
            self.encoder = small_bert(
                data_info,
                num_hidden_layers=num_hidden_layers,
                hidden_size=hidden_size,
                num_attention_heads=num_attention_heads,
                dropout=dropout,
                attention_dropout=attention_dropout,
            )
        _check_fit(self.encoder, data_info, checkpoint=checkpoint)
        if gradient_checkpointing:
            _save_memory(self.encoder, checkpoint=checkpoint)
        config = self.encoder.config
        self.skipped_positions = skipped_positions(position_embeddings(self.encoder))
        replace_dropout(self.encoder)
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(config.hidden_size, len(data_info.labels))
        nn.init.normal_(self.head.weight, std=getattr(config, "initializer_range", 0.02))
        nn.init.zeros_(self.head.bias)
        self.num_layers = max((_layer(name) + 1 for name, _ in self.encoder.named_parameters()), default=0)
        plain = json.loads(config.to_json_string(use_diff=False))
        plain.pop("_name_or_path", None)  # a path on the machine that trained
        self.blueprint: dict[str, Any] = {"checkpoint": None, "encoder": plain, "revision": revision}

    @classmethod
    def preflight(cls, settings: Mapping[str, Any], context: PreflightContext) -> Iterator[InputError]:
        """Yields what is wrong with the settings, without building or downloading an encoder."""
        try:
            check_dropout({name: settings.get(name) for name in ("dropout", "attention_dropout")})
        except InputError as error:
            yield error
        if settings.get("checkpoint") is not None:
            yield from check_directory("model.checkpoint", settings["checkpoint"], ENCODER_FILES)
            return
        names = ("num_hidden_layers", "hidden_size", "num_attention_heads")
        try:
            check_bert_sizes(**{name: settings.get(name, 1) for name in names})
        except InputError as error:
            yield error

    @classmethod
    def pretrained_bytes(cls, settings: Mapping[str, Any]) -> int | None:
        """Returns the size of the checkpoint's weights on this machine."""
        if (checkpoint := settings.get("checkpoint")) is None:
            return None
        return sum(file.stat().st_size for file in Path(checkpoint).expanduser().glob("*.safetensors"))

    def choose_attention(self, device: torch.device, dtype: torch.dtype) -> Decision:
        """Selects and returns the attention in packed rows: True computes no pairs of different texts.

        Args:
            device: of this net.
            dtype: of its computation.
        """
        choice = choose_attention(self.encoder.config, device, dtype)
        if choice.value:
            register()
            self.encoder.set_attn_implementation(PACKED)
        return choice

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor | None = None, boundaries: Tensor | None = None
    ) -> Tensor:
        """Returns logits (B, T, labels) of subwords int64 (B, T); the mask, int64 (B, T), is 0 on padding.

        Where texts share a row, the mask numbers them from 1, `position_ids`, int64 (B, T), begin at 0 in each;
        `boundaries` are those of a TokenBatch.

        Raises:
            InputError: for such rows, when this encoder would mix the texts in them.
        """
        positions = None if position_ids is None else position_ids + self.skipped_positions
        given = inputs_of(self.encoder.config, attention_mask, positions, boundaries)
        hidden = self.encoder(input_ids=input_ids, **given).last_hidden_state  # (B, T, hidden)
        logits: Tensor = self.head(self.dropout(hidden))
        return logits

    def depth(self, parameter_name: str) -> int:
        """Returns the depth of a parameter: 0 embeddings, 1 to num_layers the layers, num_layers + 1 the last linear layer.

        Args:
            parameter_name: of named_parameters() of this net or of a module that contains it.
        """
        _, inside, rest = parameter_name.partition("encoder.")
        if not inside:
            return self.num_layers + 1
        layer = _layer(rest)
        if layer >= 0:
            return layer + 1
        return 0 if "embed" in rest else self.num_layers  # a final norm belongs to the last layer


def _layer(parameter_name: str) -> int:
    """Returns the number of the encoder layer of a parameter, -1 outside the layers."""
    found = re.search(r"(?:^|\.)(?:layers?|h)\.(\d+)\.", parameter_name)
    return int(found[1]) if found else -1


def _pretrained(checkpoint: str, revision: str | None, attention_dropout: float | None) -> PreTrainedModel:
    """Returns the encoder of a directory or a name on the hub, with its weights."""
    from transformers import AutoConfig, AutoModel

    load = functools.partial(loading_errors, "model.checkpoint", checkpoint, "encoder", "trains a small random BERT")
    with load():
        config = load_pretrained(AutoConfig.from_pretrained, checkpoint, revision, {})
    if getattr(config, "vocab_size", None) is None or getattr(config, "is_encoder_decoder", False):
        raise InputError(
            f"model.checkpoint='{checkpoint}' is a '{config.model_type}' model, which is not a text encoder; "
            "take one such as bert-base-cased, roberta-base or distilbert-base-cased",
            key="model.checkpoint",
        )
    if attention_dropout is not None:
        set_attention_dropout(config, attention_dropout)
    settings = {
        "config": config,
        "dtype": torch.float32,  # the precision plugin decides later; the file's own dtype may be a half
        "weights_only": True,
        "ignore_mismatched_sizes": True,  # reported below
        "output_loading_info": True,
        **without_pooler(config),
    }
    with load(), _quiet():
        encoder, report = load_pretrained(AutoModel.from_pretrained, checkpoint, revision, settings)
    absent = {key for key in report["missing_keys"] if not key.startswith("pooler.")}
    wrong = sorted(absent | {key for key, *_ in report["mismatched_keys"]})
    if wrong:
        raise InputError(
            f"model.checkpoint='{checkpoint}': {len(wrong)} of the encoder's weights are missing or have another shape, such "
            f"as '{wrong[0]}', and would stay random: its weights are not those of the '{config.model_type}' model in its "
            "config.json; save or download it again",
            key="model.checkpoint",
        )
    model: PreTrainedModel = encoder.train()  # from_pretrained leaves it in eval()
    return model


def _save_memory(encoder: PreTrainedModel, *, checkpoint: str | None) -> None:
    if not encoder.supports_gradient_checkpointing:
        raise InputError(
            f"model.gradient_checkpointing=true: the encoder of model.checkpoint={checkpoint!r} does not support it; set it "
            "to false, and data.max_batch_per_device to save memory",
            key="model.gradient_checkpointing",
        )
    # transformers 5.23 renamed it
    getattr(encoder, "activation_checkpointing_enable", encoder.gradient_checkpointing_enable)()
    encoder.config.use_cache = False  # only decoders have one, but transformers would warn


def _check_fit(encoder: PreTrainedModel, data_info: TokenInfo, *, checkpoint: str | None) -> None:
    embeddings = encoder.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    num_known = embeddings.num_embeddings
    if data_info.vocab_size > num_known:
        raise InputError(
            f"the tokenizer has {data_info.vocab_size} entries, but the encoder of model.checkpoint={checkpoint!r} has only "
            f"{num_known}: they belong to different models; set data.tokenizer to the name or directory of this encoder"
        )
    positions = position_embeddings(encoder)
    if positions is not None and data_info.max_length > (
        num_positions := positions.num_embeddings - skipped_positions(positions)
    ):
        raise InputError(
            f"data.max_length={data_info.max_length} is more than the {num_positions} positions of the encoder of "
            f"model.checkpoint={checkpoint!r}; set data.max_length={num_positions} or less",
            key="data.max_length",
        )


def position_embeddings(encoder: nn.Module) -> nn.Embedding | None:
    """Returns the absolute position embeddings; None where there are only relative ones, which have no limit."""
    named = ((name, module) for name, module in encoder.named_modules() if isinstance(module, nn.Embedding))
    return next((module for name, module in named if name.endswith("position_embeddings")), None)


def skipped_positions(positions: nn.Embedding | None) -> int:
    """Returns the number of unused positions: RoBERTa and similar encoders count from padding_idx + 1."""
    return 0 if positions is None or positions.padding_idx is None else positions.padding_idx + 1


@contextmanager
def _quiet() -> Iterator[None]:
    """Context manager that hides transformers' progress bar and its list of unused weights; missing ones are an error here."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    previous = transformers_logging.set_tqdm_hook(lambda make, given, named: make(*given, **{**named, "disable": True}))
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.set_tqdm_hook(previous)
