from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest
from tokenizers import Tokenizer

from arclight.errors import InputError
from arclight.text.info import TokenInfo
from arclight.text.sentences import Sentence, count_entities
from arclight.text.tag_schemes import to_iob2
from project.data.synthetic_text import SyntheticText

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Sentence]]:
    data = SyntheticText()
    return {split: data.sentences(split) for split in SPLITS}


def spans(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """(first word, end, type) of the entities in IOB2 tags."""
    found, first = set(), -1
    for number, tag in enumerate([*tags, "O"]):
        if first >= 0 and tag[0] != "I":
            found.add((first, number, tags[first][2:]))
            first = -1
        if tag[0] == "B":
            first = number
    return found


def entity_f1(gold: Iterable[Sequence[str]], predicted: Iterable[Sequence[str]]) -> float:
    right = wanted = given = 0
    for one, other in zip(gold, predicted, strict=True):
        expected, found = spans(one), spans(to_iob2(other))
        right, wanted, given = right + len(expected & found), wanted + len(expected), given + len(found)
    return 2 * right / (wanted + given)


def test_the_score_used_here() -> None:
    assert spans(["B-PER", "I-PER", "B-PER", "O", "B-LOC"]) == {(0, 2, "PER"), (2, 3, "PER"), (4, 5, "LOC")}
    assert entity_f1([["B-PER", "O", "B-LOC"]], [["B-PER", "B-LOC", "O"]]) == 0.5
    assert entity_f1([["B-PER", "I-PER"]], [["B-PER", "O"]]) == 0.0


@pytest.mark.parametrize("unseen", ["O", "B-PER", "B-LOC", "B-ORG", "B-MISC"])
def test_who_learns_words_by_heart_fails(splits: dict[str, list[Sentence]], unseen: str) -> None:
    tags_of: dict[str, Counter[str]] = defaultdict(Counter)
    for sentence in splits["train"]:
        for word, tag in zip(sentence.words, sentence.tags, strict=True):
            tags_of[word][tag] += 1
    most_frequent = {word: tags.most_common(1)[0][0] for word, tags in tags_of.items()}
    test = splits["test"]
    predicted = [[most_frequent.get(word, unseen) for word in sentence.words] for sentence in test]
    assert entity_f1([sentence.tags for sentence in test], predicted) < 0.6


def test_what_makes_it_hard_is_there(splits: dict[str, list[Sentence]]) -> None:
    train, test = splits["train"], splits["test"]
    kinds: dict[str, set[str]] = defaultdict(set)
    adjacent: Counter[bool] = Counter()
    for sentence in train:
        for word, tag in zip(sentence.words, sentence.tags, strict=True):
            if word.istitle():
                kinds[word].add(tag[2:] or "O")
        found = sorted(spans(sentence.tags))
        adjacent.update(a[2] == b[2] for a, b in pairwise(found) if a[1] == b[0])
    assert sum({"PER", "LOC", "ORG", "O"} <= seen for seen in kinds.values()) >= 40  # familiar names are of every type and none
    assert adjacent[True] >= 100  # neighbours of one type
    assert adjacent[False] >= 50  # and of two
    sizes = Counter((kind, end - first) for sentence in train for first, end, kind in spans(sentence.tags))
    for kind in ("PER", "LOC", "ORG", "MISC"):
        assert sizes[kind, 1] >= 50
        assert sizes[kind, 2] >= 50
    assert sizes["ORG", 3] >= 50
    entities = [sentence.words[first:end] for sentence in test for first, end, _ in spans(sentence.tags)]
    seen = {word for sentence in train for word in sentence.words}
    assert sum(not seen.issuperset(words) for words in entities) > 0.5 * len(entities)


def test_sentences_follow_from_the_data_seed_alone(splits: dict[str, list[Sentence]]) -> None:
    for split in SPLITS:
        assert SyntheticText(seed=1).sentences(split) == splits[split]
        assert SyntheticText(data_seed=1).sentences(split) != splits[split]
    assert SyntheticText(num_test=7).sentences("test") == splits["test"][:7]
    trained_on = {sentence.words for sentence in splits["train"]}
    assert sum(sentence.words in trained_on for sentence in splits["test"]) < 0.05 * len(splits["test"])


def test_every_sentence_is_well_formed(splits: dict[str, list[Sentence]]) -> None:
    for sentence in (sentence for made in splits.values() for sentence in made):
        assert len(sentence.words) == len(sentence.tags) >= 5
        assert to_iob2(sentence.tags) == sentence.tags
        assert sentence.words[0][0].isupper()
        assert sentence.words[-1] == "."
        assert not any(letter in word for word in sentence.words for letter in "{}* ")


def test_batches_without_any_download(splits: dict[str, list[Sentence]]) -> None:
    data = SyntheticText()
    data.prepare_data()
    data.setup("fit")
    assert data.sizes == {"train": 3000, "val": 300}
    assert isinstance(data.data_info, TokenInfo)
    assert data.data_info.labels == ("O", "B-LOC", "B-MISC", "B-ORG", "B-PER", "I-LOC", "I-MISC", "I-ORG", "I-PER")
    assert data.data_info.vocab_size == 1000
    tokenizer = Tokenizer.from_str(data.data_info.tokenizer)
    unknown = tokenizer.token_to_id("[UNK]")
    encodings = tokenizer.encode_batch([list(sentence.words) for sentence in splits["test"]], is_pretokenized=True)
    assert not any(unknown in encoding.ids for encoding in encodings)
    assert [len(batch.indices) for batch in data.val_dataloader()] == [64, 64, 64, 64, 44]


def test_one_sentence_has_every_label() -> None:
    data = SyntheticText(num_train=1, num_val=50, num_test=50, batch_size=1)
    data.prepare_data()
    assert count_entities(data.sentences("train")) >= 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_train": 0}, r"data\.num_train=0 must be 1 or more"),
        ({"num_val": 0}, r"data\.num_val=0 must be 1 or more"),
        ({"num_test": -1}, r"data\.num_test=-1 must be 1 or more"),
        ({"data_seed": -1}, r"data\.data_seed=-1 must be 0 or more"),
    ],
)
def test_numbers_out_of_range(changes: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SyntheticText(**changes)
