from __future__ import annotations

from pathlib import Path

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
        f"data.validation=valid.txt: no such file in {tmp_path}. Did you mean 'train.txt'?",
        f"data.test=some.conll: no such file in {tmp_path}. Known: dev.txt, train.txt.",
    ]


def test_an_empty_folder_and_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.train=train\.txt: no such file in .*\. It holds no file\."):
        ConllFiles(str(tmp_path)).prepare_data()
    with pytest.raises(InputError, match=r"data\.root=.*nowhere: no such directory"):
        ConllFiles(str(tmp_path / "nowhere")).prepare_data()


def test_errors_in_a_file_are_reported_with_their_place(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "test.txt").write_text("1,ibuprofen,NN,B-DOSE\n")
    columns = {"separator": ",", "word_column": 1, "tag_column": 3}
    with pytest.raises(
        InputError, match=r"test\.txt:1: label 'B-DOSE' does not occur in training, which has O, B-DRUG, I-DRUG"
    ):
        ConllFiles(str(tmp_path), vocab_size=99, **columns).prepare_data()
    with pytest.raises(InputError, match=r"train\.txt:1: invalid tag 'NN'"):
        ConllFiles(str(tmp_path), **{**columns, "tag_column": 2}).prepare_data()
    with pytest.raises(
        InputError, match=r"train\.txt:1: has 1 column, needs column 1 \(word\) and column 3 \(tag\): '1,aspirin"
    ):
        ConllFiles(str(tmp_path), **{**columns, "separator": None}).prepare_data()


def test_an_empty_separator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.separator='' is empty; set what is between columns, or null"):
        ConllFiles(str(tmp_path), separator="")
