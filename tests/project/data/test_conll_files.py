from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arclight.errors import InputError
from arclight.text.info import TokenInfo
from project.data.conll_files import ConllFiles

CONTENT = "1,aspirin,NN,S-DRUG\n2,helps,VB,O\n\n1,take,VB,O\n2,vitamin,NN,B-DRUG\n3,C,NN,E-DRUG\n"


def write(folder: Path, content: str = CONTENT, names: tuple[str, ...] = ("train.txt", "valid.txt", "test.txt")) -> Path:
    for name in names:
        (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize(("separator", "written"), [(",", ","), ("\t", "\t"), ("\\t", "\t"), ("||", "||"), (None, "  ")])
def test_own_columns_with_any_separator_and_own_labels(tmp_path: Path, separator: str | None, written: str) -> None:
    write(tmp_path, CONTENT.replace(",", written))
    data = ConllFiles(str(tmp_path), separator=separator, word_column=1, tag_column=3, vocab_size=99, batch_size=2)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    assert isinstance(data.data_info, TokenInfo)
    assert data.data_info.labels == ("O", "B-DRUG", "I-DRUG")
    assert [sentence.words for sentence in data.sentences("test")] == [("aspirin", "helps"), ("take", "vitamin", "C")]
    assert [sentence.tags for sentence in data.sentences("val")] == [("B-DRUG", "O"), ("O", "B-DRUG", "I-DRUG")]
    assert data.sizes == {"train": 2, "val": 2, "test": 2}


def test_files_of_any_name_and_encoding(tmp_path: Path) -> None:
    names = ("a.conll", "b.conll", "c.conll")
    for name, word in zip(names, ("Köln", "Bern", "Graz"), strict=True):
        (tmp_path / name).write_bytes(f"{word} B-LOC\n".encode("latin-1"))
    data = ConllFiles(str(tmp_path), train=names[0], validation=names[1], test=names[2], encoding="latin-1")
    words = [data.sentences(split)[0].words[0] for split in ("train", "val", "test")]
    assert words == ["Köln", "Bern", "Graz"]


def test_all_missing_files_are_named_at_once_with_the_nearest_there_is(tmp_path: Path) -> None:
    write(tmp_path, names=("train.txt", "dev.txt"))
    with pytest.raises(InputError) as error:
        ConllFiles(str(tmp_path), train="trian.txt", test="some.conll").prepare_data()
    assert str(error.value).splitlines() == [
        f"data.train=trian.txt: no such file in {tmp_path}. Did you mean 'train.txt'?",
        f"data.validation=valid.txt: no such file in {tmp_path}. Did you mean 'train.txt'? data.validation=null draws it from "
        "the training file.",
        f"data.test=some.conll: no such file in {tmp_path}. Known: dev.txt, train.txt. data.test=null draws it from the "
        "training file.",
    ]


def test_an_empty_folder_and_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.train=train\.txt: no such file in .*\. It holds no other file\."):
        ConllFiles(str(tmp_path)).prepare_data()
    with pytest.raises(InputError, match=r"data\.root=.*nowhere: no such directory"):
        ConllFiles(str(tmp_path / "nowhere")).prepare_data()


def test_errors_in_a_file_are_reported_with_their_place(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "test.txt").write_text("1,ibuprofen,NN,B-DOSE\n")
    columns = {"separator": ",", "word_column": 1, "tag_column": 3}
    with pytest.raises(
        InputError, match=r"test\.txt:1: these entity types do not occur in training, which has DRUG: DOSE \(1, first at"
    ):
        ConllFiles(str(tmp_path), vocab_size=99, **columns).prepare_data()
    with pytest.raises(InputError, match=r"train\.txt:1: invalid tag 'NN'"):
        ConllFiles(str(tmp_path), **{**columns, "tag_column": 2}).prepare_data()
    with pytest.raises(
        InputError, match=r"train\.txt:1: has 1 column, needs column 1 \(word\) and column 3 \(tag\): '1,aspirin"
    ):
        ConllFiles(str(tmp_path), **{**columns, "separator": None}).prepare_data()


def test_an_empty_separator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.separator='' is empty; set the characters, or null"):
        ConllFiles(str(tmp_path), separator="")


def made(folder: Path, **settings: Any) -> ConllFiles:
    """Returns the data module of these files, loaded."""
    data = ConllFiles(str(folder), vocab_size=99, batch_size=2, **settings)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    return data


def test_a_missing_validation_file_is_never_replaced_by_the_test_file(tmp_path: Path) -> None:
    write(tmp_path, names=("train.txt", "test.txt"))
    with pytest.raises(InputError) as raised:
        ConllFiles(str(tmp_path)).prepare_data()
    assert "valid.txt: no such file" in str(raised.value)
    assert "'test.txt'" not in str(raised.value)


def test_splits_without_files_are_drawn_from_training(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("".join(f"word{number} B-X\n\n" for number in range(40)))
    data = made(tmp_path, validation=None, test=None, holdout=0.25)
    splits = [[one.words[0] for one in data.sentences(split)] for split in ("train", "val", "test")]
    assert sorted(word for split in splits for word in split) == sorted(f"word{number}" for number in range(40))
    assert [len(split) for split in splits] == [22, 10, 8]  # a quarter of 40, a quarter of the rest
    assert [one.words[0] for one in made(tmp_path, validation=None, test=None, holdout=0.25).sentences("val")] == splits[1]
    other = made(tmp_path, validation=None, test=None, holdout=0.25, split_seed=1)
    assert [one.words[0] for one in other.sentences("val")] != splits[1]


def test_documents_stay_whole_where_windows_span_sentences(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.conll").write_text(f"a{number} B-X\n\nb{number} O\n")
    data = made(tmp_path, train="*.conll", validation=None, test=None, holdout=0.4, context="document")
    for split in ("train", "val", "test"):
        words = {one.words[0] for one in data.sentences(split)}
        assert {f"b{word[1]}" for word in words if word[0] == "a"} == {word for word in words if word[0] == "b"}
    assert len({one.document for one in data.sentences("train")}) == len(data.sentences("train")) // 2


@pytest.mark.parametrize(
    ("choice", "labels"), [("drop", ("O", "B-DRUG", "I-DRUG")), ("add", ("O", "B-DOSE", "B-DRUG", "I-DOSE", "I-DRUG"))]
)
def test_types_that_only_test_has(tmp_path: Path, choice: str, labels: tuple[str, ...]) -> None:
    write(tmp_path)
    (tmp_path / "test.txt").write_text("1,ibuprofen,NN,B-DOSE\n2,C,NN,B-DRUG\n")
    data = made(tmp_path, separator=",", word_column=1, tag_column=3, unknown_labels=choice)
    assert data.data_info is not None
    assert data.data_info.labels == labels
    assert data.sentences("test")[0].tags == ("O" if choice == "drop" else "B-DOSE", "B-DRUG")


def test_a_split_without_entities_and_words_that_the_tokenizer_does_not_know_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path)
    (tmp_path / "valid.txt").write_text("1,\u4eac\u90fd,NN,O\n2,\u00ad,NN,O\n")
    made(tmp_path, separator=",", word_column=1, tag_column=3)
    assert "the val split holds no entity: an F1 of 0 there says nothing" in caplog.text
    assert "% of the subwords of" in caplog.text
    assert "1 words of" in caplog.text


def test_evaluation_needs_the_file_of_its_split_alone(tmp_path: Path) -> None:
    columns: dict[str, Any] = {"separator": ",", "word_column": 1, "tag_column": 3, "vocab_size": 99}
    trained = ConllFiles(str(write(tmp_path)), **columns)
    trained.prepare_data()
    trained.setup("fit")
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()

    def evaluated(split: Any, **settings: Any) -> dict[str, int]:
        data = ConllFiles(str(elsewhere), **columns, **settings)
        data.data_info, data.evaluated_split, data.is_other_data = trained.data_info, split, True
        data.prepare_data()
        data.setup("validate" if split == "val" else split)
        return data.sizes

    write(elsewhere, names=("test.txt",))
    assert evaluated("test") == {"test": 2}
    with pytest.raises(InputError, match=r"^data\.validation=valid\.txt: no such file in [^\n]*$"):
        evaluated("val")
    (elsewhere / "train.txt").write_text((CONTENT + "\n") * 5)
    assert evaluated("val", validation=None) == {"val": 10}  # nothing is held out from a model that has not seen it
    assert [sorted(fields) for fields in trained.sample_fields("train", [0, 1])] == [["words"], ["words"]]
