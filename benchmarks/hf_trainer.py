"""transformers' Trainer on tagged sentences, as a baseline: set up as its run_ner.py example does, with the example's defaults.

    python -m benchmarks.hf_trainer --steps 200 data=conll2003 data.root=DIRECTORY model=bert_tagger model.checkpoint=DIRECTORY
    python -m benchmarks.hf_trainer --pad-to 128 ...     # the example's --pad_to_max_length with --max_seq_length 128
    python -m benchmarks.hf_trainer --bf16 ...           # the example's --bf16
    python -m benchmarks.hf_trainer --epochs 1 ...       # whole epochs, then scores the test split as `python train.py` does

Encoder, sentences and batch size come from the overrides. Random batches padded to their longest sentence, labels on
first subwords, float32 by default, AdamW (Trainer's fused default), no workers, gradients clipped at norm 1. Prints one line
of JSON; tokens are counted without padding. Needs `accelerate` (benchmarks/requirements.txt).

Source: examples/pytorch/token-classification/run_ner.py of transformers 5.23.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import (
    DataCollatorForTokenClassification,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from arclight.benchmark.training_step import compose
from arclight.checkpoint.contents import build_module
from arclight.config.instantiate import build
from arclight.interfaces import IGNORE_INDEX
from arclight.text.datamodule import TokenDataModule
from arclight.text.entities import EntityCounts, entity_table
from arclight.text.info import TokenInfo
from project.lightning_modules.token_tagger import TokenTagger

NUM_WARMUP = 10  # steps before the clock starts


class Sentences(Dataset[dict[str, Any]]):
    """Tokenised once, as run_ner's map does; labels on the first subword of each word."""

    def __init__(self, data: TokenDataModule, data_info: TokenInfo) -> None:
        tokenizer = Tokenizer.from_str(data_info.tokenizer)
        tokenizer.enable_truncation(data_info.max_length)
        number = {label: n for n, label in enumerate(data_info.labels)}
        self.rows = []
        for sentence in data.sentences("train"):
            encoding = tokenizer.encode(list(sentence.words), is_pretokenized=True)
            labels, before = [], None
            for word in encoding.word_ids:
                labels.append(IGNORE_INDEX if word is None or word == before else number[sentence.tags[word]])
                before = word
            self.rows.append({"input_ids": encoding.ids, "attention_mask": [1] * len(encoding.ids), "labels": labels})

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


class Tagger(nn.Module):
    """The net of the overrides with the interface of Trainer."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.net(input_ids, attention_mask)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX)
        return {"loss": loss, "logits": logits}


class Counting:
    """Collator that records how many samples and tokens each batch has."""

    def __init__(self, collate: Any) -> None:
        self.collate, self.batches = collate, list[tuple[int, int]]()

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        batch = self.collate(rows)
        self.batches.append((len(rows), sum(len(row["input_ids"]) for row in rows)))
        return batch


class Clock(TrainerCallback):
    """Records when each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.ends.append(time.perf_counter())


def main() -> None:
    """Trains and prints sentences and tokens per second in the steady state."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--pad-to", type=int)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    settings = compose(options.overrides)
    data: TokenDataModule = build(settings["data"], "data", {"seed": settings["seed"]})
    data.prepare_data()
    data.setup("fit")
    assert isinstance(data.data_info, TokenInfo)
    torch.manual_seed(settings["seed"])
    module = build_module(settings, data.data_info)
    assert isinstance(module, TokenTagger)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(data.data_info.tokenizer), pad_token="[PAD]")
    length = {"max_steps": NUM_WARMUP + options.steps} if options.epochs is None else {"num_train_epochs": options.epochs}
    padding = {"padding": "max_length", "max_length": options.pad_to} if options.pad_to else {"padding": True}
    collate = Counting(DataCollatorForTokenClassification(tokenizer, **padding))
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=data.batch_size,
            **length,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=settings["seed"],
            bf16=options.bf16,
            use_cpu=not torch.cuda.is_available(),
        )
        trainer = Trainer(
            model=Tagger(module.net),
            args=arguments,
            train_dataset=Sentences(data, data.data_info),
            data_collator=collate,
            callbacks=[clock],
        )
        began = time.perf_counter()
        trainer.train()
        train_s = time.perf_counter() - began
    if options.epochs is not None:
        print(json.dumps({"test/f1": entity_f1(module, data), "time/fit_s": train_s}))
        return
    seconds = clock.ends[-1] - clock.ends[NUM_WARMUP - 1]
    samples, tokens = (sum(counts) for counts in zip(*collate.batches[NUM_WARMUP : NUM_WARMUP + options.steps], strict=True))
    numbers = {"samples_per_s": samples / seconds, "tokens_per_s": tokens / seconds, "step_ms": 1000 * seconds / options.steps}
    print(json.dumps({f"train/{name}": value for name, value in numbers.items()}))


@torch.no_grad()
def entity_f1(module: TokenTagger, data: TokenDataModule) -> float:
    """Returns the micro F1 of the entities of the test split, by the code that scores our own runs."""
    data.setup("test")
    device = next(module.parameters()).device
    module.eval()
    counts = EntityCounts(module.labels).to(device)
    for batch in data.test_dataloader():
        moved = move_data_to_device(batch, device)
        counts.update(module.predict_words(moved), moved.word_labels)
    return entity_table(counts.compute().lenient, counts.types, title="").averages[0].f1


if __name__ == "__main__":
    main()
