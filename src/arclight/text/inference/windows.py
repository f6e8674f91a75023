"""Long sentences in overlapping windows: each word is predicted where it has most context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tokenizers import Encoding, Tokenizer


class Window(NamedTuple):
    """A row of the model's input, and the words that are predicted from it."""

    ids: list[int]  # subwords, special ones included
    words: list[int]  # numbers of the words in the sentence
    positions: list[int]  # of their first subwords in `ids`


class WindowMaker:
    """Makes windows of at most `max_length` subwords, two of which overlap by half.

    Args:
        tokenizer: as JSON, as data info holds it.
        max_length: subwords of a window, special ones included.
    """

    def __init__(self, tokenizer: str, max_length: int) -> None:
        self.tokenizer = Tokenizer.from_str(tokenizer)
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        special = self.tokenizer.encode(["a"], is_pretokenized=True)
        outside = [word is None for word in special.word_ids]
        first = outside.index(False) if False in outside else len(outside)
        last = len(outside) - outside[::-1].index(False) if False in outside else first
        self._before, self._after = special.ids[:first], special.ids[last:]
        self._room = max(1, max_length - len(self._before) - len(self._after))

    def windows(self, sentences: Sequence[Sequence[str]]) -> list[list[Window]]:
        """Returns the windows of each sentence. A word that the tokenizer drops is in none."""
        encodings = self.tokenizer.encode_batch(
            [list(words) for words in sentences], is_pretokenized=True, add_special_tokens=False
        )
        return [self._windows_of(encoding) for encoding in encodings]

    def _windows_of(self, encoding: Encoding) -> list[Window]:
        ids: list[int] = encoding.ids
        firsts: dict[int, int] = {}  # word -> its first subword
        for position, word in enumerate(encoding.word_ids):
            if word is not None:
                firsts.setdefault(word, position)
        step = max(1, self._room // 2)
        starts = [0] if len(ids) <= self._room else [*range(0, len(ids) - self._room, step), len(ids) - self._room]
        chosen: dict[int, tuple[list[int], list[int]]] = {start: ([], []) for start in starts}
        for word, position in firsts.items():
            middle = (position - self._room // 2) // step  # number of the window in whose middle the word is
            near = starts[max(0, middle - 1) : middle + 3]
            start = max(near, key=lambda start: self._context(position - start, start, len(ids)))
            words, positions = chosen[start]
            words.append(word)
            positions.append(position - start + len(self._before))
        return [
            Window([*self._before, *ids[start : start + self._room], *self._after], words, positions)
            for start, (words, positions) in chosen.items()
            if words
        ]

    def _context(self, position: int, start: int, length: int) -> int:
        """Returns the subwords between a position of a window and its nearer end; the ends of the sentence do not count."""
        if not 0 <= position < self._room:
            return -1
        before = length if start == 0 else position
        after = length if start + self._room >= length else self._room - 1 - position
        return min(before, after)
