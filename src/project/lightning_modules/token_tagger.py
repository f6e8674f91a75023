"""TokenTagger: subwords in, a tag for every word out, every entity counted once."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from arclight.hardware import Decision
from arclight.interfaces import Monitor
from arclight.metrics.confusion import accuracy, class_table
from arclight.metrics.predictions import PredictionCollector
from arclight.modules.supervised import Scores, SupervisedModule
from arclight.optim.param_groups import LrRule, LRSchedule, MakeOptimizer
from arclight.text.entities import EntityCounts, entity_table, words
from arclight.text.info import TokenBatch, TokenInfo
from arclight.text.records import SentencePrediction

_log = logging.getLogger(__name__)

OUTSIDE = 0  # a TokenSpec's labels begin with "O"


class TokenTagger(SupervisedModule):
    """Trains `net` on first subwords; scores entities (conlleval's rules) and single tags over all words.

    A word that truncation cut off counts as predicted "O". The loss of a batch is the sum over its labelled subwords divided by
    their number in the whole batch, so that it does not depend on how the batch is spread over processes and parts.

    Args:
        data_info: the data's facts: labels and tokenizer.
        net: input_ids (R, T), attention_mask (R, T) -> logits (R, T, labels); with position_ids (R, T) for packed rows, and
            with boundaries (N + 1,), if it takes them.
        make_optimizer: wants the parameter groups.
        scheduler: (step, total_steps) -> factor on the learning rate.
        label_smoothing: share of each target spread over all labels, 0 or more and below 1.
        layer_decay: factor on the learning rate from each layer of the encoder to the one below; 1 is none.
        lr_rule: how the learning rate follows the global batch: "none", "linear" or "sqrt" of its quotient by `lr_batch_size`.
        lr_batch_size: the global batch that the optimizer's learning rate was chosen for; every rule but "none" wants it.
    """

    info_type = TokenInfo
    monitor = Monitor("val/f1", "max")
    record_type = SentencePrediction
    reduction = "sum"

    def __init__(
        self,
        data_info: TokenInfo,
        *,
        net: nn.Module,
        make_optimizer: MakeOptimizer,
        scheduler: LRSchedule,
        label_smoothing: float = 0.0,
        layer_decay: float = 1.0,
        lr_rule: LrRule = "none",
        lr_batch_size: int | None = None,
    ) -> None:
        super().__init__(
            data_info,
            net=net,
            labels=data_info.labels,
            make_optimizer=make_optimizer,
            scheduler=scheduler,
            label_smoothing=label_smoothing,
            layer_decay=layer_decay,
            lr_rule=lr_rule,
            lr_batch_size=lr_batch_size,
        )
        self.labels = data_info.labels
        self.entities = EntityCounts(data_info.labels)
        self._takes_boundaries = "boundaries" in inspect.signature(net.forward).parameters

    def on_fit_start(self) -> None:
        choose: Callable[[torch.device, torch.dtype], Decision] | None = getattr(self.net, "choose_attention", None)
        packing = getattr(self.trainer.datamodule, "packing", "none")  # type: ignore[attr-defined]
        if choose is not None and packing in ("rows", "fixed"):
            dtype = {"bf16": torch.bfloat16, "16": torch.float16}.get(str(self.trainer.precision).split("-")[0], torch.float32)
            _log.info("attention in packed rows: %s", choose(self.trainer.strategy.root_device, dtype).reason)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor | None = None,
        boundaries: Tensor | None = None,
    ) -> Tensor:
        """Logits (R, T, labels) of token numbers (R, T); the others are those of a TokenBatch."""
        logits: Tensor = self.net(*self._inputs(input_ids, attention_mask, position_ids, boundaries))
        return logits

    def _inputs(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor | None, boundaries: Tensor | None
    ) -> tuple[Tensor, ...]:
        """What the net is given: it need not know of several texts in a row, nor of their boundaries."""
        known = boundaries if self._takes_boundaries and position_ids is not None else None
        return tuple(part for part in (input_ids, attention_mask, position_ids, known) if part is not None)

    def training_step(self, batch: TokenBatch) -> Tensor:
        inputs = self._inputs(batch.input_ids, batch.attention_mask, batch.position_ids, batch.boundaries)
        return self.loss_of(inputs, batch.labels) / batch.num_labelled

    def predict_words(self, batch: TokenBatch) -> Tensor:
        """The label number of every word (B, W); that of "O" where truncation cut the word off."""
        predicted = by_sentence(self._logits(batch).argmax(dim=-1), batch)
        return words(predicted, batch.word_starts, outside=OUTSIDE)

    def count(self, batch: TokenBatch, collector: PredictionCollector | None = None) -> None:
        logits = self._logits(batch).float()
        self.count_losses(logits.flatten(0, 1), batch.labels.flatten())
        predicted = words(by_sentence(logits.argmax(dim=-1), batch), batch.word_starts, outside=OUTSIDE)  # (B, W)
        self.entities.update(predicted, batch.word_labels)
        self.confusion.update(predicted.flatten(), batch.word_labels.flatten())
        if collector is not None:
            seen = batch.word_starts >= 0
            confidence = by_sentence(logits.softmax(dim=-1).amax(dim=-1), batch).gather(1, batch.word_starts.clamp(min=0))
            collector.add(batch.indices, batch.word_labels, predicted, confidence.masked_fill(~seen, math.nan))

    def _logits(self, batch: TokenBatch) -> Tensor:
        logits: Tensor = self(batch.input_ids, batch.attention_mask, batch.position_ids, batch.boundaries)
        return logits

    def score(self) -> Scores:
        lenient, strict = self.entities.compute()
        counts = self.confusion.compute()
        entities = entity_table(lenient, self.entities.types, title="Per entity (conlleval)")
        entities_strict = entity_table(strict, self.entities.types, title="Per entity (strict IOB2)")
        tags = class_table(counts, self.labels, title="Per tag", leave_out=(self.labels[OUTSIDE],))
        micro = entities.averages[0]
        return Scores(
            numbers={
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
    """The row (B, T) that holds each sentence, of values (R, T)."""
    return values if batch.rows is None else values[batch.rows]
