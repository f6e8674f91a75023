"""Writes an encoder of BERT's size without a hub: random weights, and a vocabulary trained on the words of a data set.

    python -m benchmarks.bert_encoder DIRECTORY data=conll2003 data.root=CONLL
    python -m benchmarks.bert_encoder DIRECTORY --layers 1 --width 32 data=synthetic_text

DIRECTORY is then a `model.checkpoint`. Sizes are those of transformers' BertConfig(), which is bert-base, its table of 30,522
words included, however few of them the data has. It is as fast as the real one; its scores mean nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from arclight.benchmark.training_step import compose
from arclight.config.instantiate import build
from arclight.text.datamodule import TokenDataModule
from arclight.text.tokenizer import train_wordpiece


def main() -> None:
    """Writes the directory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args()  # options may stand between the folder and the overrides
    settings = compose(["model=bert_tagger", "model.checkpoint=null", "data=synthetic_text", *options.overrides])
    data: TokenDataModule = build(settings["data"], "data", {"seed": settings["seed"]})
    data.prepare_data()
    words = (word for sentence in data.sentences("train") for word in sentence.words)
    config = BertConfig()
    tokenizer = train_wordpiece(words, vocab_size=config.vocab_size)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    saved = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=config.max_position_embeddings, **names)
    saved.save_pretrained(options.folder)
    config.update(
        {
            "num_hidden_layers": options.layers,
            "hidden_size": options.width,
            "intermediate_size": 4 * options.width,
            "num_attention_heads": max(1, options.width // 64),
            "pad_token_id": 0,
        }
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(options.folder)
    print(f"{options.folder}: {tokenizer.get_vocab_size():,} subwords, {options.layers} layers of width {options.width}")


if __name__ == "__main__":
    main()
