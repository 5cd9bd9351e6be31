"""Source maps of modules that no bundler has touched: each word stands where it was written, so stack frames have places.

A frame without a map is left out of stacks, and a frame's line and column, which count from 1, are looked up in the map as if they counted from 0
(``runtime.md`` section 8.2). A bundler's output hides that; here the map does: its line L holds the words of the L-th line, counted from 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import orjson

_WORD: Final = re.compile(r"\w+|[^\w\s]+")
_LINE_END: Final = re.compile(r"\r\n|[\n\r\u2028\u2029]")
_DIGITS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def _vlq(value: int) -> str:
    """Base64 VLQ of the source map format, version 3."""
    rest = (-value << 1) | 1 if value < 0 else value << 1
    text = ""
    while True:
        digit, rest = rest & 31, rest >> 5
        text += _DIGITS[digit | 32 if rest else digit]
        if not rest:
            return text


def _columns(line: str) -> Iterator[int]:
    """Where something begins in *line*, in UTF-16 units as JavaScript counts; always 0 first."""
    yield 0
    plain = line.isascii()
    column = before = 0
    for word in _WORD.finditer(line):
        start = word.start()
        if start:
            # Counted on from the last word: a line of minified code may be a megabyte.
            column += start - before if plain else len(line[before:start].encode("utf-16-le")) // 2
            before = start
            yield column


def word_map(name: str, text: str, *, words: bool = True) -> str:
    """The map of *text* onto itself, JSON text. Takes a third of a second for a megabyte with words, next to nothing without.

    :param name: what frames call the source. :param words: else only lines have places.
    """
    if not words:
        # Each line begins what it maps to: column 0, same source, next line, column 0.
        return _map(name, ["AAAA", *["AACA"] * len(_LINE_END.split(text))])
    lines = ["AAAA"]
    last_line = last_column = 0
    for number, line in enumerate(_LINE_END.split(text), 1):
        segments = []
        generated = 0
        for column in _columns(line):
            segments.append(f"{_vlq(column - generated)}A{_vlq(number - last_line)}{_vlq(column - last_column)}")
            generated = last_column = column
            last_line = number
        lines.append(",".join(segments))
    return _map(name, lines)


def _map(name: str, lines: list[str]) -> str:
    return orjson.dumps({"version": 3, "sources": [name], "names": [], "mappings": ";".join(lines)}).decode()
