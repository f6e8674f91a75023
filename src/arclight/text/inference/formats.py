"""Output formats of tagged text: CoNLL columns, and a page with the entities marked."""

from __future__ import annotations

import html

from arclight.console.terminal import printable
from arclight.inference.pipeline import Format, Record

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Entities</title>
<style>
body { font: 16px/1.7 system-ui, sans-serif; max-width: 48rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere }
p { white-space: pre-wrap }
mark { border-radius: .3em; padding: .1em .25em; color: #111; background: #cfe3ff }
mark small { font-weight: 600; margin-inline-start: .4em }
</style>
"""
COLOURS = ("#cfe3ff", "#ffe0b8", "#cdeccd", "#f2d0ec", "#fff0a8", "#d9d4f7")


def to_columns(record: Record) -> str:
    """Returns a line for each word and an empty one after each sentence; the predicted tag is the last column.

    The columns of a column file are kept before it, so that conlleval finds the true tag second to last.
    """
    lines = record.get("columns") or record["words"]
    blocks = []
    for start, end in record["sentences"]:
        blocks += [f"{line.rstrip()} {tag}\n" for line, tag in zip(lines[start:end], record["tags"][start:end], strict=True)]
        blocks.append("\n")
    return "".join(blocks)


def to_html(record: Record) -> str:
    """Returns a paragraph with the entities marked."""
    text, parts, end = record["text"], [], 0
    for found in record["entities"]:
        # by the name of the type, so that it is the same in every process; modulo 11, PER, LOC, ORG and MISC differ
        colour = COLOURS[sum(map(ord, found["type"])) % 11 % len(COLOURS)]
        title = f"{found['type']} {found['score'] or 0:.2f}"
        parts += [
            html.escape(text[end : found["start"]]),
            f'<mark style="background:{colour}" title="{html.escape(title)}">{html.escape(found["text"])}'
            f"<small>{html.escape(found['type'])}</small></mark>",
        ]
        end = found["end"]
    parts.append(html.escape(text[end:]))
    return printable(f'<p dir="auto" title="{html.escape(record["source"])}">{"".join(parts)}</p>\n')


FORMATS = {"conll": Format(to_columns), "html": Format(to_html, header=PAGE, footer="</html>\n")}
