"""TokenTagger: trains a net to tag the words of sentences."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from arclight.hardware import Decision
from arclight.interfaces import Monitor
from arclight.metrics.predictions import PredictionCollector
from arclight.metrics.tables import accuracy, class_table
from arclight.modules.supervised import ClassificationModule, Scores
from arclight.text.entities import EntityCounts, entity_table, words
from arclight.text.info import TokenBatch, TokenInfo
from arclight.text.records import SentencePrediction

_log = logging.getLogger(__name__)

OUTSIDE = 0  # the labels of TokenInfo begin with "O"


class TokenTagger(ClassificationModule):
    """Trains `net` on first subwords; evaluates entities (by the rules of conlleval) and tags over all words.

    A word that truncation cut off counts as predicted "O". The loss of a batch is the sum over its labelled subwords divided by
    their number in the global batch, so that it does not depend on how the batch is divided into processes and micro-batches.

    The arguments not listed here are those of SupervisedModule.

    Args:
        data_info: metadata of the data: labels and tokenizer.
        net: input_ids (R, T), attention_mask (R, T) -> logits (R, T, labels); with position_ids (R, T) for packed rows, and
            with boundaries (N + 1,), if it takes them.
    """

    info_type = TokenInfo
    monitor = Monitor("val/f1", "max")
    record_type = SentencePrediction
    reduction = "sum"

    def __init__(self, data_info: TokenInfo, *, net: nn.Module, **options: Any) -> None:
        super().__init__(data_info, net=net, **options)
        self.set_labels(data_info.labels)
        self.entities = EntityCounts(data_info.labels)
        self._takes_boundaries = "boundaries" in inspect.signature(net.forward).parameters

    def on_fit_start(self) -> None:
        choose: Callable[[torch.device, torch.dtype], Decision] | None = getattr(self.net, "choose_attention", None)
        packing = getattr(self.trainer.datamodule, "packing", "none")  # type: ignore[attr-defined]
        if choose is not None and packing in ("rows", "fixed"):
            dtype = {"bf16": torch.bfloat16, "16": torch.float16}.get(str(self.trainer.precision).split("-")[0], torch.float32)
            _log.info("attention in packed rows: %s", choose(self.trainer.strategy.root_device, dtype).reason)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor | None = None, boundaries: Tensor | None = None
    ) -> Tensor:
        """Returns logits (R, T, labels) of token ids (R, T); the others are those of a TokenBatch."""
        logits: Tensor = self.net(*self._net_inputs(input_ids, attention_mask, position_ids, boundaries))
        return logits

    def _net_inputs(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor | None, boundaries: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Returns the arguments of the net: one that takes no packed rows or no boundaries gets none."""
        accepted = boundaries if self._takes_boundaries and position_ids is not None else None
        return tuple(part for part in (input_ids, attention_mask, position_ids, accepted) if part is not None)

    def training_step(self, batch: TokenBatch) -> Tensor:
        inputs = self._net_inputs(batch.input_ids, batch.attention_mask, batch.position_ids, batch.boundaries)
        return self.training_loss(inputs, batch.labels) / batch.num_labelled

    def predict_words(self, batch: TokenBatch) -> Tensor:
        """Returns the label number of every word (B, W); that of "O" where truncation cut the word off."""
        predicted = by_sentence(self._logits(batch).argmax(dim=-1), batch)
        return words(predicted, batch.word_starts, outside=OUTSIDE)

    def update_metrics(self, batch: TokenBatch, collector: PredictionCollector | None = None) -> None:
        logits = self._logits(batch).float()
        self.update_loss(logits.flatten(0, 1), batch.labels.flatten())
        predicted = words(by_sentence(logits.argmax(dim=-1), batch), batch.word_starts, outside=OUTSIDE)  # (B, W)
        self.entities.update(predicted, batch.word_labels)
        self.confusion.update(predicted.flatten(), batch.word_labels.flatten())
        if collector is not None:
            is_predicted = batch.word_starts >= 0
            confidence = by_sentence(logits.softmax(dim=-1).amax(dim=-1), batch).gather(1, batch.word_starts.clamp(min=0))
            collector.add(batch.indices, batch.word_labels, predicted, confidence.masked_fill(~is_predicted, math.nan))

    def _logits(self, batch: TokenBatch) -> Tensor:
        logits: Tensor = self(batch.input_ids, batch.attention_mask, batch.position_ids, batch.boundaries)
        return logits

    def compute_metrics(self) -> Scores:
        lenient, strict = self.entities.compute()
        counts = self.confusion.compute()
        entities = entity_table(lenient, self.entities.types, title="Per entity (conlleval)")
        entities_strict = entity_table(strict, self.entities.types, title="Per entity (strict IOB2)")
        tags = class_table(counts, self.labels, title="Per tag", leave_out=(self.labels[OUTSIDE],))
        micro = entities.averages[0]
        return Scores(
            metrics={
                "loss": self.mean_loss(),
                "f1": micro.f1,
                "precision": micro.precision,
                "recall": micro.recall,
                "f1_strict": entities_strict.averages[0].f1,
                "accuracy": accuracy(counts),
            },
            per_class={row.name: row.f1 for row in entities.rows},
            tables=(entities, entities_strict, tags),
            labels=self.labels,
            counts=counts.tolist(),
        )


def by_sentence(values: Tensor, batch: TokenBatch) -> Tensor:
    """Returns values (B, T) of the row that holds each sentence, of values (R, T)."""
    return values if batch.rows is None else values[batch.rows]
