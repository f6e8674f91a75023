"""Tokenizers: that of a pretrained encoder, or a WordPiece vocabulary trained on the data."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import chain
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from arclight.errors import InputError
from arclight.text.pretrained import load_pretrained, loading_errors

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")  # ids 0 to 3 of a trained vocabulary


def load_tokenizer(name_or_path: str, *, max_length: int, revision: str | None = None) -> tuple[Tokenizer, int]:
    """Returns a pretrained encoder's tokenizer and its padding id, from a directory, the local cache or the Hugging Face hub.

    It neither truncates nor pads, and prepends a space to every word, as byte-level ones need. Code of the model is never run.

    Raises:
        InputError: when there is no such encoder, the hub does not answer, the tokenizer is not one of the tokenizers library,
            or `max_length` is more than the encoder supports.
    """
    from transformers import AutoTokenizer

    with loading_errors("data.tokenizer", name_or_path, "tokenizer", "trains a vocabulary"):
        loaded = load_pretrained(AutoTokenizer.from_pretrained, name_or_path, revision, {}, check=_check_tokenizer)
    most = loaded.model_max_length  # a huge number where the encoder does not define it
    if max_length > most:
        raise InputError(
            f"data.max_length={max_length} is more than {name_or_path} supports; set {most} or less", key="data.max_length"
        )
    tokenizer: Tokenizer = loaded.backend_tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if '"add_prefix_space": false' in json.dumps(json.loads(tokenizer.to_str())["pre_tokenizer"]):
        space = normalizers.Prepend(" ")
        tokenizer.normalizer = normalizers.Sequence([space, tokenizer.normalizer]) if tokenizer.normalizer else space
    return tokenizer, loaded.pad_token_id or 0  # any id serves, as nothing attends to padding


def train_wordpiece(words: Iterable[str], *, vocab_size: int) -> Tokenizer:
    """Returns a cased WordPiece tokenizer trained on these words, in BERT's form: [PAD] is 0, a sentence is [CLS] ... [SEP].

    Every letter gets an id at the start and inside of words, so that only unseen letters become [UNK]. The same words give the
    same ids in every process.

    Raises:
        InputError: when `vocab_size` is smaller than the alphabet.
    """
    words = list(words)
    normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    letters = sorted(set(normalizer.normalize_str("".join(sorted(set(chain.from_iterable(words)))))) - {" "})
    # the trainer would order the ids of inner letters as a hash map, which differs between processes
    given = [*SPECIAL, *(f"##{letter}" for letter in letters)]
    if vocab_size < (least := len(given) + len(letters)):
        raise InputError(
            f"data.vocab_size={vocab_size} is too small for {len(letters)} letters; set {least} or more", key="data.vocab_size"
        )
    learner = Tokenizer(models.WordPiece(unk_token=SPECIAL[1]))
    learner.normalizer, learner.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    trainer: Any = trainers.WordPieceTrainer  # it has no type annotations
    options = {"vocab_size": vocab_size, "special_tokens": given, "initial_alphabet": letters, "show_progress": False}
    learner.train_from_iterator(words, trainer(**options))
    # a new tokenizer, because the learner treats the whole initial alphabet as special tokens
    tokenizer = Tokenizer(models.WordPiece(learner.get_vocab(), unk_token=SPECIAL[1]))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.BertProcessing((SPECIAL[3], 3), (SPECIAL[2], 2))
    return tokenizer


def _check_tokenizer(found: Any) -> None:
    # without vocabulary files transformers 5 makes a tokenizer of special tokens only
    if not getattr(found, "is_fast", False) or len(found) <= len(found.all_special_tokens):
        raise OSError("it has no tokenizer.json, and none can be converted from its files")
