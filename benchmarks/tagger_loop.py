"""The plain loop that trains a tagger in many projects, as a baseline: DataLoader, padding collator, AdamW, nothing tuned.

    python -m benchmarks.tagger_loop --bf16 data=conll2003 data.root=DIRECTORY model=bert_tagger model.checkpoint=DIRECTORY

Encoder, sentences and batch size come from the overrides. Random batches padded to their longest sentence, autocast with
--bf16 and float32 otherwise, gradients clipped at norm 1, the loss read in every step as those loops do for their progress
bar. Prints one line of JSON; tokens are counted without padding.

Source: the loop of "Token classification" in the Hugging Face course, without its Accelerator.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.utils.data import DataLoader
from transformers import DataCollatorForTokenClassification, PreTrainedTokenizerFast

from arclight.benchmark.training_step import compose
from arclight.config.instantiate import build
from arclight.text.datamodule import TokenDataModule
from arclight.text.info import TokenInfo
from benchmarks.dataloader_loop import load
from benchmarks.hf_trainer import NUM_WARMUP, Sentences, Tagger


def main() -> None:
    """Trains and prints sentences and tokens a second in the steady state."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--only-load", action="store_true", help="batches alone, nothing trained")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    settings = compose(options.overrides)
    data: TokenDataModule = build(settings["data"], "data", {"seed": settings["seed"]})
    data.prepare_data()
    data.setup("fit")
    assert isinstance(data.data_info, TokenInfo)
    torch.manual_seed(settings["seed"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(data.data_info.tokenizer), pad_token="[PAD]")
    loader = DataLoader(
        Sentences(data, data.data_info),
        batch_size=data.batch_size,
        shuffle=True,
        drop_last=True,
        collate_fn=DataCollatorForTokenClassification(tokenizer),
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
    )
    if options.only_load:
        print(json.dumps(load(loader, options.steps, device)))
        return
    net = Tagger(build(settings["model"], "model", {"data_info": data.data_info})).to(device).train()
    print(json.dumps(train(net, loader, options.steps, device, is_bf16=options.bf16)))


def train(net: Tagger, loader: Iterable[Any], num_steps: int, device: torch.device, *, is_bf16: bool) -> dict[str, float]:
    """Runs the loop and returns its speed."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-5)
    began, step, samples, tokens, running_loss = 0.0, 0, 0, 0, 0.0
    while step < NUM_WARMUP + num_steps:
        for batch in loader:
            if step == NUM_WARMUP:  # the device has finished all before: the loss was read
                began, samples, tokens = time.perf_counter(), 0, 0
            samples += len(batch["input_ids"])
            tokens += int(batch["attention_mask"].sum())  # still on the host
            moved = {name: tensor.to(device) for name, tensor in batch.items()}
            with torch.autocast(device.type, dtype=torch.bfloat16) if is_bf16 else nullcontext():
                loss = net(moved["input_ids"], moved["attention_mask"], moved["labels"])["loss"]
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            running_loss += loss.item()
            step += 1
            if step == NUM_WARMUP + num_steps:
                break
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    numbers = {"samples_per_s": samples / seconds, "tokens_per_s": tokens / seconds, "step_ms": 1000 * seconds / num_steps}
    return {**{f"train/{name}": value for name, value in numbers.items()}, "loss": running_loss / step}


if __name__ == "__main__":
    main()
