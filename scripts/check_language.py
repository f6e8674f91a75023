#!/usr/bin/env python3
"""Reports words that this project's texts do not use and what to write instead; exits with 1 if it finds any.

python scripts/check_language.py            checks every tracked file in PLACES
python scripts/check_language.py FILE...    checks these files
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = (
    *("src", "conf", "docs", "notebooks", "scripts", "benchmarks/*.py", "train.py", "Makefile"),
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"),
)
OLD_NAMES = ("conf/renamed.yaml", "scripts/check_language.py")  # list the old words on purpose
DATA = ("{PER} told reporters that",)  # sentences of data sets
REPLACEMENTS = {  # pattern of the word: what to write instead
    r"(?<![a-z])told(?![a-z])": "reported, logged, raised",
    r"hushed": "silenced",
    r"\bgo(es|ing)? on from\b|\bgoes on\b|\bgone on with\b": "resumes, is resumed, continues",
    r"put_together": "build_components",
    r"announcement": "run summary",
    r"\bwishes\b": "requested settings",
    r"\bas you said\b": "set by user",
    r"portrait": "dataset summary",
    r"rehearsal": "dry run",
    r"come_back": "round-trip check",
    r"hand_over": "upload_artifacts",
    r"\banew\b": "again",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"sureness": "confidence",
    r"look_ahead": "prefetch",
    r"residence": "storage",
    r"durable": "atomic_write",
    r"\bis no folder\b": "is not a directory",
    r"\bthis would do\b": "Try:",
}
WORDS = re.compile("|".join(f"({pattern})" for pattern in REPLACEMENTS), re.IGNORECASE)


def find_words(text: str) -> Iterator[tuple[int, str, str]]:
    """Yields the line number, the word found and what to write instead. Tables that begin with `| old` are skipped."""
    is_table_of_old_names = False
    for number, line in enumerate(text.splitlines(), 1):
        is_table_of_old_names = line.startswith("| old") or (is_table_of_old_names and line.startswith("|"))
        if is_table_of_old_names or any(sentence in line for sentence in DATA):
            continue
        for found in WORDS.finditer(line):
            pattern = next(pattern for pattern in REPLACEMENTS if re.fullmatch(pattern, found[0], re.IGNORECASE))
            yield number, found[0], REPLACEMENTS[pattern]


def tracked_files() -> list[Path]:
    """Returns the files under PLACES that git tracks, without OLD_NAMES."""
    listed = subprocess.run(["git", "ls-files", "-z", *PLACES], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and name not in OLD_NAMES]


def main(names: list[str]) -> int:
    """Prints `file:line: word` for every finding and returns the exit status."""
    num_found = 0
    for path in [Path(name) for name in names] or tracked_files():
        if not path.is_file() or b"\0" in (content := path.read_bytes()):
            continue
        for line, word, instead in find_words(content.decode(errors="replace")):
            num_found += 1
            print(f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{line}: {word!r} (write: {instead})")
    return int(num_found > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
