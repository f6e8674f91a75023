"""Entity scores, against hand-counted cases and against seqeval, by both of its conventions."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from arclight.errors import InputError
from arclight.interfaces import IGNORE_INDEX
from arclight.text.entities import EntityCounts, EntityTotals, count_entities, entity_table, scheme, spans, words

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # seqeval is no longer maintained
    from seqeval.metrics import classification_report
    from seqeval.metrics.sequence_labeling import get_entities
    from seqeval.scheme import IOB2, Entities

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
LOC, PER = 0, 1  # types are sorted
Entity = tuple[str, int, int]  # type, first word, last word


def tags(text: str, labels: tuple[str, ...] = LABELS) -> Tensor:
    return torch.tensor([[labels.index(tag) for tag in text.split()]])


def found(text: str) -> tuple[set[Entity], set[Entity]]:
    """The entities by the lenient and by the strict rule."""
    rules = scheme(LABELS)
    result = spans(tags(text), scheme=rules)
    return tuple(  # type: ignore[return-value]  # two of them
        {
            (rules.names[int(result.types[0, word])], word, int(result.ends[0, word]) - 1)
            for word in opens[0].nonzero().flatten().tolist()
        }
        for opens in (result.opens, result.opens_strictly)
    )


@pytest.mark.parametrize(
    ("text", "lenient", "strict"),
    [
        ("B-PER I-PER O", {("PER", 0, 1)}, {("PER", 0, 1)}),
        ("B-PER B-PER", {("PER", 0, 0), ("PER", 1, 1)}, {("PER", 0, 0), ("PER", 1, 1)}),
        ("O I-PER I-PER", {("PER", 1, 2)}, set()),
        ("B-PER I-LOC I-LOC", {("PER", 0, 0), ("LOC", 1, 2)}, {("PER", 0, 0)}),
        ("B-PER O I-PER", {("PER", 0, 0), ("PER", 2, 2)}, {("PER", 0, 0)}),
        ("I-PER", {("PER", 0, 0)}, set()),
        ("I-PER I-LOC I-PER", {("PER", 0, 0), ("LOC", 1, 1), ("PER", 2, 2)}, set()),
        ("O O", set(), set()),
        ("B-LOC I-LOC I-LOC", {("LOC", 0, 2)}, {("LOC", 0, 2)}),
        ("I-LOC B-LOC I-LOC", {("LOC", 0, 0), ("LOC", 1, 2)}, {("LOC", 1, 2)}),
    ],
)
def test_each_rule_of_both_conventions(text: str, lenient: set[Entity], strict: set[Entity]) -> None:
    assert found(text) == (lenient, strict)


def test_right_predicted_and_true_entities_are_the_hand_counted_ones() -> None:
    gold = torch.cat([tags("B-PER I-PER O B-LOC O"), tags("B-LOC O B-PER O O"), tags("O O B-PER O O")])
    predicted = torch.cat([tags("B-PER I-PER O B-PER O"), tags("I-LOC O B-PER I-PER O"), tags("B-LOC O B-PER O O")])
    counts = EntityCounts(LABELS)
    counts.update(predicted, gold)
    lenient, strict = counts.compute()
    # PER: right twice, once too long, once for a LOC; LOC: the I-LOC is right by the lenient rule only, the B-LOC is wrong
    assert counts.types == ("LOC", "PER")
    assert lenient.tolist() == [[1, 2, 2], [2, 4, 3]]
    assert strict.tolist() == [[0, 1, 2], [2, 4, 3]]
    assert lenient.dtype == torch.int64


def test_a_place_without_a_word_is_outside_wherever_it_is() -> None:
    gold = tags("B-PER I-PER O B-LOC I-LOC")
    gold[0, [1, 4]] = IGNORE_INDEX
    predicted = tags("B-PER I-PER I-PER B-LOC I-LOC")
    counts = EntityCounts(LABELS)
    counts.update(predicted, gold)
    # true: PER 0-0, LOC 3-3; predicted: PER 0-0, PER 2-2 (opened by I-PER after the gap), LOC 3-3
    assert counts.compute().lenient.tolist() == [[1, 1, 1], [1, 2, 1]]
    assert counts.compute().strict.tolist() == [[1, 1, 1], [1, 1, 1]]
    whatever = predicted.clone()
    whatever[0, [1, 4]] = torch.tensor([IGNORE_INDEX, 0])
    again = EntityCounts(LABELS)
    again.update(whatever, gold)
    assert torch.equal(again.compute().lenient, counts.compute().lenient)


def test_a_truncated_word_counts_as_predicted_outside() -> None:
    subwords = tags("O B-PER I-PER I-PER B-LOC O")  # [CLS] a b ##b c [SEP]; a fourth word was cut off, a fifth is none
    starts = torch.tensor([[1, 2, 4, -1, -1]])
    predicted = words(subwords, starts, outside=0)
    assert predicted.tolist() == tags("B-PER I-PER B-LOC O O").tolist()
    gold = tags("B-PER I-PER B-LOC I-LOC O")
    gold[0, 4] = IGNORE_INDEX
    counts = EntityCounts(LABELS)
    counts.update(predicted, gold)
    assert counts.compute().lenient.tolist() == [[0, 1, 1], [1, 1, 1]]


def test_words_uses_the_number_of_the_outside_label() -> None:
    assert words(torch.tensor([[1, 2]]), torch.tensor([[-1, 0]]), outside=7).tolist() == [[7, 1]]


def test_every_pair_of_short_sentences_counts_as_seqeval_counts() -> None:
    sentences = list(itertools.product(LABELS, repeat=3))
    lenient = [set(get_entities(list(sentence))) for sentence in sentences]
    strict = [
        {(entity.tag, entity.start, entity.end - 1) for entity in row}
        for row in Entities([list(sentence) for sentence in sentences], IOB2).entities
    ]
    numbers = torch.tensor([[LABELS.index(tag) for tag in sentence] for sentence in sentences])
    rules = scheme(LABELS)
    for i in range(len(sentences)):
        predicted = numbers[i].expand_as(numbers)
        totals = count_entities(predicted, numbers, scheme=rules)
        for counts, oracle in ((totals.lenient, lenient), (totals.strict, strict)):
            for kind, name in enumerate(rules.names):
                guessed = {entity for entity in oracle[i] if entity[0] == name}
                expected = [
                    sum(len(guessed & true) for true in oracle),
                    len(guessed) * len(sentences),
                    sum(entity[0] == name for true in oracle for entity in true),
                ]
                assert counts[kind].tolist() == expected, sentences[i]


def random_case(random: np.random.Generator, num_sentences: int) -> tuple[list[str], list[list[str]], list[list[str]]]:
    """Labels in any order, true tags in IOB2 and predicted tags with every kind of wrong turn."""
    names = random.choice(["PER", "LOC", "ORG", "MISC", "A-B", "_x"], size=random.integers(1, 5), replace=False)
    labels = ["O", *(f"{part}-{name}" for name in names for part in "BI")]
    labels = ["O", *random.permutation(labels[1:])]
    gold, predicted = [], []
    for _ in range(num_sentences):
        true: list[str] = []
        for _ in range(random.integers(1, 13)):
            continued = [f"I-{true[-1][2:]}"] if true and true[-1] != "O" else []
            true.append(str(random.choice(["O", *continued * 3, *(label for label in labels if label[0] == "B")])))
        keep = random.random(len(true)) < random.choice([0.0, 0.5, 0.9])
        gold.append(true)
        predicted.append([tag if kept else str(random.choice(labels)) for tag, kept in zip(true, keep, strict=True)])
    return labels, predicted, gold


def padded(sentences: list[list[str]], labels: list[str], fill: int) -> Tensor:
    width = max(map(len, sentences))
    return torch.tensor([[labels.index(tag) for tag in row] + [fill] * (width - len(row)) for row in sentences])


def assert_same(counts: Tensor, types: tuple[str, ...], report: dict[str, Any]) -> None:
    table = entity_table(counts, types, title="entities")
    rows = [*table.rows, *table.averages]
    assert [row.name for row in table.rows] == sorted(set(report) - {"micro avg", "macro avg", "weighted avg"})
    for row in rows:
        expected = report[row.name]
        got = (row.precision, row.recall, row.f1, row.support)
        assert got == pytest.approx(tuple(expected[key] for key in ("precision", "recall", "f1-score", "support")), abs=1e-12)


def test_scores_equal_those_of_seqeval_on_random_sentences() -> None:
    random = np.random.default_rng(0)
    num_wrong_turns = 0
    for case in range(150):
        labels, predicted, gold = random_case(random, num_sentences=1 + case % 40)
        if not any(tag != "O" for row in gold for tag in row):
            gold[0][0] = next(label for label in labels if label[0] == "B")  # seqeval fails on no entity at all
        counts = EntityCounts(labels)
        garbage = int(random.integers(0, len(labels)))
        counts.update(padded(predicted, labels, garbage), padded(gold, labels, IGNORE_INDEX))
        lenient, strict = counts.compute()
        num_wrong_turns += int(lenient[:, 1].sum() - strict[:, 1].sum())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy and sklearn warn about seqeval's code
            settings = {"output_dict": True, "zero_division": 0}
            assert_same(lenient, counts.types, classification_report(gold, predicted, **settings))
            assert_same(strict, counts.types, classification_report(gold, predicted, mode="strict", scheme=IOB2, **settings))
    assert num_wrong_turns > 1000


def test_true_tags_that_are_no_iob2_count_as_seqeval_counts() -> None:
    random = np.random.default_rng(1)
    numbers = random.integers(0, len(LABELS), (2, 500, 9))
    predicted, gold = ([[LABELS[number] for number in row] for row in part] for part in numbers)
    counts = EntityCounts(LABELS)
    counts.update(*torch.from_numpy(numbers))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same(counts.compute().lenient, counts.types, classification_report(gold, predicted, output_dict=True))
        report = classification_report(gold, predicted, mode="strict", scheme=IOB2, output_dict=True)
    assert_same(counts.compute().strict, counts.types, report)


def test_counts_add_up_however_the_data_is_cut() -> None:
    random = np.random.default_rng(2)
    labels, predicted, gold = random_case(random, num_sentences=60)
    tensors = padded(predicted, labels, 0), padded(gold, labels, IGNORE_INDEX)
    whole = EntityCounts(labels)
    whole.update(*tensors)
    for _ in range(10):
        order = torch.from_numpy(random.permutation(60))
        cuts = np.sort(random.integers(0, 61, 4)).tolist()  # empty parts too
        parts = [EntityCounts(labels) for _ in range(2)]
        for i, rows in enumerate(order.tensor_split(cuts)):
            parts[i % 2].update(*(tensor[rows] for tensor in tensors))
        parts[0].merge_state(parts[1])  # as processes are summed
        assert all(torch.equal(a, b) for a, b in zip(parts[0].compute(), whole.compute(), strict=True))


def test_reset_starts_again_at_0() -> None:
    counts = EntityCounts(LABELS)
    counts.update(tags("B-PER"), tags("B-PER"))
    counts.reset()
    assert counts.lenient.tolist() == counts.strict.tolist() == [[0, 0, 0], [0, 0, 0]]
    counts.update(tags("B-LOC"), tags("B-LOC"))
    assert counts.compute().strict.tolist() == [[1, 1, 1], [0, 0, 0]]


def test_nothing_in_update_waits_for_the_device() -> None:
    counts = EntityCounts(LABELS).to("meta")  # where no value can be read
    counts.update(torch.zeros(2, 3, dtype=torch.int64, device="meta"), torch.zeros(2, 3, dtype=torch.int64, device="meta"))
    assert isinstance(counts.compute(), EntityTotals)
    assert counts.compute().lenient.device.type == "meta"


def test_counts_leave_no_trace_in_a_checkpoint() -> None:
    assert EntityCounts(LABELS).state_dict() == {}


def test_batches_without_words_or_sentences_count_nothing() -> None:
    counts = EntityCounts(LABELS)
    for shape in ((0, 4), (3, 0), (0, 0)):
        counts.update(torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64))
    assert counts.compute().lenient.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_a_type_with_no_entity_on_either_side_has_no_row() -> None:
    counts = torch.tensor([[1, 2, 1], [0, 0, 0], [0, 0, 4], [0, 3, 0]])
    table = entity_table(counts, ("ZZZ", "PER", "LOC", "ORG"), title="entities")
    assert [row.name for row in table.rows] == ["LOC", "ORG", "ZZZ"]
    assert [row.name for row in table.averages] == ["micro avg", "macro avg", "weighted avg"]
    assert table.averages[1].precision == pytest.approx(0.5 / 3)
    assert entity_table(counts[1:2], ("PER",), title="entities").averages[0].f1 == 0.0


def test_types_may_hold_hyphens_and_labels_any_order() -> None:
    rules = scheme(("I-A-B", "O", "B-A-B", "B-A"))
    assert rules.names == ("A", "A-B")
    assert rules.types.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("label", ["S-PER", "PER", "B-", "", "o", "B_PER"])
def test_a_label_of_another_scheme_is_reported(label: str) -> None:
    with pytest.raises(InputError, match=f"label '{label}' is not an IOB2 tag: entity F1 needs 'O', 'B-TYPE' and 'I-TYPE'"):
        EntityCounts(("O", "B-PER", label))


def test_labels_without_a_type_are_reported() -> None:
    with pytest.raises(InputError, match=r"labels \['O'\] have no entity type"):
        EntityCounts(("O",))
