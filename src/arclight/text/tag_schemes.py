"""Tags of any common scheme -> IOB2: IOB1, IOBES, BILOU, BMES, other spellings of them, and bare types."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from arclight.errors import InputError
from arclight.text.sentences import Sentence, visible

LETTERS = "BIESLUMW"  # begin, inside, end, single; last, unit; middle, whole
OUTSIDE = ("O", "0", "o", "-", "_")  # the later ones only where O does not occur
MAX_BARE = 200  # types without a prefix; more are words or parts of speech
# How the tags of entities may be spelled, and how each is read; group 1 is the letter, or group 2 in a suffix
SPELLINGS = {
    "B-PER": re.compile(rf"(?P<letter>[{LETTERS}])-(?P<kind>.+)"),
    "B_PER": re.compile(rf"(?P<letter>[{LETTERS}])_(?P<kind>.+)"),
    "b-per": re.compile(rf"(?P<letter>[{LETTERS.lower()}])-(?P<kind>.+)"),
    "PER-B": re.compile(rf"(?P<kind>.+)-(?P<letter>[{LETTERS}])"),
    "PER_B": re.compile(rf"(?P<kind>.+)_(?P<letter>[{LETTERS}])"),
}
EXPECTED = "expected O, or one of B, I, E, S, L, U, M, W followed by - and a type, such as B-PER"

log = logging.getLogger(__name__)


def to_iob2(tags: Sequence[str], *, place: Callable[[int], str] | None = None) -> tuple[str, ...]:
    """Returns the tags of one sentence in IOB2: B-X on each entity's first word, I-X on its others, O elsewhere.

    The tags may be IOB1, IOB2, IOBES, BILOU or BMES. I-X and M-X begin an entity after O or another type, and continue one
    otherwise; B-X always begins one. S-X, U-X and W-X are entities of one word, E-X and L-X end theirs.

    Args:
        tags: of one sentence, in order.
        place: returns the place of a tag, such as file:line, for the message.

    Raises:
        InputError: when a tag is neither O nor such a letter followed by - and a type.
    """
    result = []
    inside = ""  # the type of the entity that the next word may belong to
    for number, tag in enumerate(tags):
        if tag == "O":
            inside = ""
        elif found := SPELLINGS["B-PER"].fullmatch(tag):
            letter, kind = found["letter"], found["kind"]
            begins = letter in "BSUW" or kind != inside
            inside = "" if letter in "ESLUW" else kind
            tag = f"B-{kind}" if begins else f"I-{kind}"
        else:
            raise InputError(
                f"{place(number) if place else f'tag {number + 1}'}: invalid tag '{visible(tag[:40])}'; {EXPECTED}"
            )
        result.append(tag)
    return tuple(result)


def in_iob2(sentences: Iterable[Sentence]) -> list[Sentence]:
    """Returns the sentences of a file with their tags in IOB2; a spelling that differs from B-PER and O is logged.

    Spellings are B_PER, b-per, PER-B, the digit 0, - or _ for O, I-O, invisible characters around a tag, and bare types such as
    PER, of which each run of words is one entity. One that is not the same in the whole file is an error.

    Raises:
        InputError: with file and line of the first tag that fits no spelling.
    """
    sentences = list(sentences)
    counts = Counter(tag for sentence in sentences for tag in sentence.tags)
    names, notes = standard_names(counts)
    if sentences:
        for note in notes:
            log.warning("%s: %s", sentences[0].file, note)
    try:
        return [one._replace(tags=to_iob2([names[tag] for tag in one.tags], place=one.place)) for one in sentences]
    except InputError as error:
        num_wrong = sum(1 for name in names.values() if name != "O" and not SPELLINGS["B-PER"].fullmatch(name))
        if 2 * num_wrong > len(names):
            raise InputError(f"{error}; most of this column are no tags: is data.tag_column right?") from None
        raise


def standard_names(counts: Mapping[str, int]) -> tuple[dict[str, str], list[str]]:
    """Returns how the tags of a file, given with their counts, are spelled in the standard form, and what to log about it.

    A tag that fits no spelling is left as it is.
    """
    names = {tag: unicodedata.normalize("NFC", tag).strip().strip("\u200b\u200c\u200d\u2060\ufeff\u00a0 ") for tag in counts}
    notes = []
    if changed := [tag for tag, name in names.items() if tag != name and not tag.isprintable()]:
        notes.append(f"invisible characters are left out of the tags {', '.join(map(visible, changed[:5]))}")
    found = set(names.values())
    outside = next((name for name in OUTSIDE if name in found), "O")
    others = dict.fromkeys(({outside, "0"} & found) - {"O"}, "O")
    others |= {name: "O" for name in found if re.fullmatch(r"[BI]-O", name)}
    for name in others:
        notes.append(f"the tag {name} is read as O ({sum(counts[tag] for tag in names if names[tag] == name):,} words)")
    kinds = found - {"O", *others}
    spelled, note = _spelled(kinds, has_outside=outside in found)
    notes += [note] if note else []
    return {tag: {**spelled, **others}.get(name, name) for tag, name in names.items()}, notes


def _spelled(kinds: set[str], *, has_outside: bool) -> tuple[dict[str, str], str]:
    """Returns the standard form of the tags of entities, and what to log about their spelling."""
    for example, pattern in SPELLINGS.items():
        if all(matches := [pattern.fullmatch(kind) for kind in kinds]):
            spelled = {match[0]: f"{match['letter'].upper()}-{match['kind']}" for match in matches if match}
            return spelled, "" if example == "B-PER" or not kinds else f"tags are spelled as in {example}, and read as in B-PER"
    is_bare = not any(pattern.fullmatch(kind) for pattern in SPELLINGS.values() for kind in kinds)
    if is_bare and has_outside and len(kinds) <= MAX_BARE and all(kind == kind.strip("-_") for kind in kinds):
        shown = ", ".join(sorted(map(visible, kinds))[:5])
        note = f"tags have no prefix ({shown}): each run of words of one type is read as one entity"
        return {kind: f"I-{kind}" for kind in kinds}, note
    return {}, ""
