from __future__ import annotations

import json
import shutil
from pathlib import Path

import httpx
import pytest
from tokenizers import Tokenizer

from arclight.errors import InputError
from arclight.text.tokenizer import load_tokenizer, train_wordpiece

# ids in conftest's vocabulary of single letters
PAD, UNK, CLS, SEP = range(4)
A, D, INNER_B, INNER_C, INNER_E = 5, 8, 59, 60, 62


def test_a_folder_gives_its_tokenizer_which_neither_cuts_nor_pads(bert_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cutting"
    shutil.copytree(bert_folder, folder)
    cutting = Tokenizer.from_file(str(folder / "tokenizer.json"))
    cutting.enable_truncation(4)
    cutting.enable_padding(length=9)
    cutting.save(str(folder / "tokenizer.json"))
    tokenizer, pad_id = load_tokenizer(str(folder), max_length=64)
    assert pad_id == PAD
    assert tokenizer.encode(["abc", "de"], is_pretokenized=True).ids == [CLS, A, INNER_B, INNER_C, D, INNER_E, SEP]


def byte_level(folder: Path, kind: str) -> Path:
    from tokenizers import models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaTokenizer

    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4, "a": 5, "b": 6, "Ġ": 7, "Ġa": 8, "Ġb": 9}
    merges = [("Ġ", "a"), ("Ġ", "b")]
    if kind == "roberta":
        RobertaTokenizer(vocab=vocabulary, merges=merges).save_pretrained(folder)
        RobertaConfig().save_pretrained(folder)
    else:
        tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>").save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("kind", "ends", "pad"), [("roberta", (["<s>"], ["</s>"]), 1), ("plain", ([], []), 0)])
def test_byte_level_vocabularies_see_a_space_before_every_word(
    tmp_path: Path, kind: str, ends: tuple[list[str], list[str]], pad: int
) -> None:
    tokenizer, pad_id = load_tokenizer(str(byte_level(tmp_path / kind, kind)), max_length=64)
    for again in (tokenizer, Tokenizer.from_str(tokenizer.to_str())):
        encoding = again.encode(["a", "ba", "b"], is_pretokenized=True)
        assert encoding.tokens == [*ends[0], "Ġa", "Ġb", "a", "Ġb", *ends[1]]
        assert [word for word in encoding.word_ids if word is not None] == [0, 1, 1, 2]
    assert pad_id == pad


def test_more_than_the_encoder_takes_is_refused(bert_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "short"
    shutil.copytree(bert_folder, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 64}))
    load_tokenizer(str(folder), max_length=64)
    with pytest.raises(InputError, match=r"data\.max_length=65 is more than .*short supports; set 64 or less"):
        load_tokenizer(str(folder), max_length=65)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere/at/all", "one/two/three"])
def test_a_path_that_is_not_there_is_no_question_for_the_hub(name: str) -> None:
    with pytest.raises(InputError, match=rf"data\.tokenizer={name}: no such directory"):
        load_tokenizer(name, max_length=8)


def test_a_directory_without_a_tokenizer_is_reported(tmp_path: Path) -> None:
    from transformers import BertConfig

    with pytest.raises(InputError, match=r"no tokenizer can be loaded from this directory \("):
        load_tokenizer(str(tmp_path), max_length=8)
    BertConfig().save_pretrained(tmp_path)  # of this transformers makes a tokenizer that knows no word
    with pytest.raises(InputError, match=r"it has no tokenizer\.json, and none can be converted from its files"):
        load_tokenizer(str(tmp_path), max_length=8)
    (tmp_path / "tokenizer.json").write_text("{half")
    with pytest.raises(InputError, match=r"no tokenizer can be loaded from this directory \("):
        load_tokenizer(str(tmp_path), max_length=8)


def test_a_name_is_looked_for_on_the_hub_and_reported_when_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    with pytest.raises(
        InputError, match=r"no-such: no such directory, and the Hugging Face hub did not .* data\.tokenizer=null"
    ):
        load_tokenizer("no-such", max_length=8)

    def not_found(hub: object, name: str, revision: str, timeout: float) -> None:
        response = httpx.Response(404, request=httpx.Request("GET", "https://hub"))
        raise RepositoryNotFoundError(f"no {name}", response=response)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", not_found)
    with pytest.raises(
        InputError, match=r"no-such: no such directory.* hub did not provide it \(no public model of this name\)"
    ):
        load_tokenizer("no-such", max_length=8)


WORDS = ["low", "lower", "lowest", "new", "newer", "newest", "wide", "wider", "Ärger", "U.S.", "low", "new"] * 5


def test_a_trained_vocabulary_is_the_same_every_time() -> None:
    texts = {train_wordpiece(iter(WORDS), vocab_size=60).to_str() for _ in range(5)}
    assert len(texts) == 1


def test_a_trained_vocabulary_has_the_form_of_bert() -> None:
    tokenizer = train_wordpiece(WORDS, vocab_size=60)
    assert tokenizer.get_vocab_size() <= 60
    assert [tokenizer.id_to_token(number) for number in range(4)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    encoding = tokenizer.encode(["Ärger", "low", "U.S."], is_pretokenized=True)
    assert (encoding.ids[0], encoding.ids[-1]) == (CLS, SEP)
    assert encoding.special_tokens_mask == [1, *[0] * (len(encoding) - 2), 1]
    assert set(encoding.word_ids[1:-1]) == {0, 1, 2}
    assert tokenizer.encode("##l", add_special_tokens=False).tokens != ["##l"]  # no piece is taken for a special token


def test_letters_seen_in_training_are_known_at_every_place_of_a_word() -> None:
    tokenizer = train_wordpiece(WORDS, vocab_size=60)
    assert UNK not in tokenizer.encode(["rÄ", "SU", "tsgd"], is_pretokenized=True).ids
    assert tokenizer.encode(["xlow", "low"], is_pretokenized=True).tokens == ["[CLS]", "[UNK]", "low", "[SEP]"]


def test_a_vocabulary_too_small_for_the_letters_is_refused() -> None:
    with pytest.raises(InputError, match=r"data\.vocab_size=9 is too small for 3 letters; set 10 or more"):
        train_wordpiece(["ab", "ca"], vocab_size=9)
    assert train_wordpiece(["ab", "ca"], vocab_size=10).get_vocab_size() == 10
