"""Raw text -> sentences -> words, by rules, in any script; every word keeps its place in the text.

Words are split as in CoNLL-2003: punctuation apart, "did n't" and "Peter 's" apart, "ex-president", "U.S." and "1,000.50"
whole. Chinese and Japanese characters are words of their own, as in BERT's vocabularies.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import regex

DOTTED = """
adm ald apr aug ave brig bros capt cf cmdr co col corp dec dept det dr ed eds est feb fig figs fr fri gen gov
hon inc insp jan jr jul jun lt ltd maj mar messrs mr mrs ms mt nos nov oct op pp prof pvt rep reps rev sat sen
sens sep sept sgt sr st ste supt thu tue univ vol vs wed bzw ca etc evtl ggf hr nr str usw vgl
"""
ABBREVIATIONS = frozenset(DOTTED.split())  # whose dot is part of the word and ends no sentence
LETTERS = r"[\p{L}\p{M}\p{N}_\u200c\u200d]"  # with joiners inside words of Persian and Indian scripts
APOSTROPHE = "['\u2019]"
WORD = regex.compile(
    rf"""
    https?://[^\s<>"]*[^\s<>"'.,;:!?)\]] | www\.[^\s<>"]*[^\s<>"'.,;:!?)\]]
    | [\w.+-]+@[\w-]+(?:\.[\w-]+)+
    | [\p{{Han}}\p{{Hiragana}}\p{{Katakana}}]\p{{M}}*
    | (?:\p{{L}}\.){{2,}}
    | (?i:\b(?:{"|".join(sorted(ABBREVIATIONS))}))\.(?!\.)
    | \b\p{{Lu}}\.(?=\s+\p{{Lu}})
    | [-+]?\p{{N}}+(?:[.,:/-]\p{{N}}+)*(?:{LETTERS}+)?
    | (?i:{LETTERS}+(?=n{APOSTROPHE}t\b)) | (?i:(?<={LETTERS})n{APOSTROPHE}t\b)
    | (?i:(?<={LETTERS}){APOSTROPHE}(?:s|re|ve|ll|d|m)\b)
    | {LETTERS}+(?:(?:[-.&·]|{APOSTROPHE}(?!(?:s|re|ve|ll|d|m|t)\b)){LETTERS}+)*
    | \.{{2,}} | -{{2,}}
    | (?![\s\p{{C}}])\X
    """,
    regex.VERBOSE,
)
CLOSING = r"""["'\p{Pe}\p{Pf}]*"""
SENTENCE_END = regex.compile(
    rf"[.!?\u2026]+{CLOSING}(?=\s+[\p{{Pi}}\p{{Ps}}\"']*(?:\p{{Lu}}|\p{{Lt}}|\p{{Lo}}|\p{{N}}|\p{{So}}))"
    rf"|[\u061f\u06d4\u0964\u0965\u3002\uff01\uff1f\uff0e]+{CLOSING}"  # of Arabic, Indian and Chinese scripts
    r"|\n[ \t]*(?=\n)"
)
INITIAL = regex.compile(r"(?:\p{Lu}|(?:\p{L}\.)*\p{L})")  # J. and U.S. end no sentence


class Word(NamedTuple):
    """A word, and its place in the text: `text[start:end]`."""

    text: str
    start: int
    end: int


def split_sentences(text: str) -> Iterator[tuple[int, int]]:
    """Yields start and end of each sentence of a text, white space between them left out; an empty line ends one, too."""
    begin = 0
    ends = (found.end() for found in SENTENCE_END.finditer(text) if not is_abbreviation(text, found))
    for end in itertools.chain(ends, [len(text)]):
        inner = text[begin:end]
        if stripped := inner.strip():
            start = begin + inner.index(stripped)
            yield start, start + len(stripped)
        begin = end


def is_abbreviation(text: str, found: regex.Match[str]) -> bool:
    """Returns whether the dot of a possible end of a sentence belongs to an abbreviation or an initial."""
    if text[found.start() : found.end()] != ".":
        return False
    start = max(text.rfind(" ", 0, found.start()), text.rfind("\n", 0, found.start())) + 1
    word = text[start : found.start()].lstrip("\"'([{\u201c\u2018")
    return word.lower() in ABBREVIATIONS or INITIAL.fullmatch(word) is not None


def split_words(text: str, start: int = 0, end: int | None = None) -> list[Word]:
    """Returns the words of `text[start:end]`; their places are those in the whole text."""
    found = WORD.finditer(text, start, len(text) if end is None else end)
    return [Word(match.group(), match.start(), match.end()) for match in found]
