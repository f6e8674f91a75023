"""Where subwords come from: a pretrained encoder's tokenizer, or a vocabulary learned on the spot."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from arclight.errors import InputError
from arclight.text.pretrained import load_pretrained

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")  # ids 0 to 3 of a vocabulary that is trained here


def load_tokenizer(name_or_folder: str, *, max_length: int, revision: str | None = None) -> tuple[Tokenizer, int]:
    """A pretrained encoder's tokenizer and its padding id, from a folder, the local cache or the Hugging Face hub.

    It neither cuts nor pads, and sees a space before every word, as byte-level ones must. No code of the model's own is run.

    Raises:
        InputError: when there is no such encoder, the hub does not answer, the tokenizer is not one of the tokenizers
            library, or `max_length` is more than the encoder takes.
    """
    loaded = _from_transformers(name_or_folder, revision)
    most = loaded.model_max_length  # a huge number where the encoder does not tell
    if max_length > most:
        raise InputError(f"data.max_length={max_length} is more than {name_or_folder} takes; take {most} or less")
    tokenizer: Tokenizer = loaded.backend_tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if '"add_prefix_space": false' in json.dumps(json.loads(tokenizer.to_str())["pre_tokenizer"]):
        space = normalizers.Prepend(" ")
        tokenizer.normalizer = normalizers.Sequence([space, tokenizer.normalizer]) if tokenizer.normalizer else space
    return tokenizer, loaded.pad_token_id or 0  # without one any id does, as nothing attends to padding


def train_wordpiece(words: Iterable[str], *, vocab_size: int) -> Tokenizer:
    """A cased WordPiece vocabulary learned from these words, in BERT's form: [PAD] is 0, a sentence is [CLS] ... [SEP].

    Every letter gets an id at the start and inside of words, so only letters not seen here become [UNK]. The same words give
    the same ids in every process.

    Raises:
        InputError: when `vocab_size` is too small to hold the letters.
    """
    words = list(words)
    normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    letters = sorted(set(normalizer.normalize_str("".join(sorted(set(chain.from_iterable(words)))))) - {" "})
    # left to the trainer, the ids of inner letters would follow a hash map's order, another one in each process
    given = [*SPECIAL, *(f"##{letter}" for letter in letters)]
    if vocab_size < (least := len(given) + len(letters)):
        raise InputError(f"data.vocab_size={vocab_size} does not hold {len(letters)} letters of the text; take {least} or more")
    learner = Tokenizer(models.WordPiece(unk_token=SPECIAL[1]))
    learner.normalizer, learner.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    trainer: Any = trainers.WordPieceTrainer  # it carries no types
    options = {"vocab_size": vocab_size, "special_tokens": given, "initial_alphabet": letters, "show_progress": False}
    learner.train_from_iterator(words, trainer(**options))
    # a new one, because all that was given beforehand counts as a special token in the learner
    tokenizer = Tokenizer(models.WordPiece(learner.get_vocab(), unk_token=SPECIAL[1]))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.BertProcessing((SPECIAL[3], 3), (SPECIAL[2], 2))
    return tokenizer


def _from_transformers(name_or_folder: str, revision: str | None) -> Any:
    """A transformers tokenizer, looked for on this machine first: the hub is asked only for what is not here."""
    from huggingface_hub.errors import RepositoryNotFoundError
    from transformers import AutoTokenizer

    what, is_folder = f"data.tokenizer={name_or_folder}", Path(name_or_folder).expanduser().is_dir()
    if not is_folder and (name_or_folder.startswith((".", "/", "~")) or name_or_folder.count("/") > 1):
        raise InputError(f"{what}: no such folder")

    def check(found: Any) -> None:
        # without vocabulary files transformers 5 makes a tokenizer of nothing but special tokens
        if not getattr(found, "is_fast", False) or len(found) <= len(found.all_special_tokens):
            raise OSError("it has no tokenizer.json, and none can be made of its files")

    try:
        return load_pretrained(AutoTokenizer.from_pretrained, name_or_folder, revision, {}, check=check)
    except InputError as error:
        raise InputError(f"{what}: {error}") from error
    except RepositoryNotFoundError:
        raise InputError(f"{what}: no folder here and no public model on the Hugging Face hub has this name") from None
    except Exception as error:  # of any class: transformers and tokenizers pass on whatever they meet
        if is_folder:
            raise InputError(f"{what}: no tokenizer can be read from this folder: {str(error)[:200]}") from None
        raise InputError(
            f"{what}: neither on this machine nor to be had from the Hugging Face hub ({str(error)[:200]}); "
            f"without network, give the folder of a copy, or train a vocabulary on the spot with data.tokenizer=null"
        ) from None
