"""Text in columns and lines that fit a terminal, with or without colours (D15). Pure."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from installer.terminal.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BETWEEN = "   "  # columns, as kubectl does
NARROWEST = 20  # columns: a narrower terminal is treated as this wide
CUT = "..."  # after what is cut off
NONE = "-"


class Colour(Enum):
    """Colours of a terminal (ECMA-48, SGR)."""

    PLAIN = ""
    DIM = "2"
    RED = "1;31"
    GREEN = "32"
    YELLOW = "33"


@dataclass(frozen=True)
class Style:
    """What the output can show.

    Attributes:
        width: columns of the terminal; None: a pipe, without a line length.
        colours: whether it supports colours.
        bar: two characters, for the done and the open part of a progress bar; empty: no bar.
    """

    width: int | None = None
    colours: bool = False
    bar: str = ""

    def paint(self, text: str, colour: Colour) -> str:
        """Colour a text, if the output supports colours."""
        return f"\x1b[{colour.value}m{text}\x1b[0m" if self.colours and colour.value and text else text

    def wrapped(self, text: str, first: str = "", following: str = "", colour: Colour = Colour.PLAIN) -> list[str]:
        """Wrap a text to the width; never break a word, which somebody may have to copy."""
        words = [printable(each) for each in text.split()]
        if self.width is None:
            return [self.paint(first + " ".join(words), colour)]
        return [self.paint(each, colour) for each in _filled(words, max(self.width, NARROWEST), first, following)]


def columns_of(text: str) -> int:
    """Count the columns that a text takes on a terminal: two for a wide character (UAX 11), none for a combining mark."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


class Cell(NamedTuple):
    """A value in a table."""

    text: str
    colour: Colour = Colour.PLAIN


class Column(NamedTuple):
    """A column: its title, and its rank for dropping when the width is too small, highest first; 0: never dropped."""

    title: str
    leave: int = 0


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], style: Style, *, whole: bool = False) -> list[str]:
    """Format a table: a line of titles, then one line per row.

    Args:
        columns: at least one.
        rows: each with a cell for each column.
        style: the output's style; columns are dropped until the rest fits, then the first is cut.
        whole: whether to write everything, whatever the width.
    """
    shown = list(range(len(columns)))
    widths = [max(columns_of(_clean(row[at])) for row in [_titles(columns), *rows]) for at in shown]
    room = None if whole else style.width

    def needed() -> int:
        return sum(widths[at] for at in shown) + len(BETWEEN) * (len(shown) - 1)

    while room is not None and needed() > room:
        at = max(shown, key=lambda each: columns[each].leave)
        if not columns[at].leave:
            widths[shown[0]] = max(widths[shown[0]] - (needed() - room), len("NODE"))
            break
        shown.remove(at)
    return [_line([row[at] for at in shown], [widths[at] for at in shown], style) for row in [_titles(columns), *rows]]


def _titles(columns: Sequence[Column]) -> list[Cell]:
    return [Cell(each.title, Colour.DIM) for each in columns]


def _line(cells: Sequence[Cell], widths: Sequence[int], style: Style) -> str:
    parts = []
    for cell, width in zip(cells, widths, strict=True):
        text = _cut(_clean(cell), width)
        parts.append((text, cell.colour, width - columns_of(text)))
    *before, (last, colour, _) = parts
    padded = [style.paint(text, colour) + " " * space + BETWEEN for text, colour, space in before]
    return "".join([*padded, style.paint(last, colour)])


def _cut(text: str, room: int) -> str:
    """Cut a text that is wider than its room."""
    if columns_of(text) <= room:
        return text
    text = text[:room]
    while columns_of(text) > max(room - len(CUT), 0):
        text = text[:-1]
    return text + CUT[:room]


def _filled(words: Sequence[str], room: int, first: str, following: str) -> Iterator[str]:
    """Fill lines with words."""
    line, is_begun = first, False
    for word in words:
        if is_begun and columns_of(line) + 1 + columns_of(word) > room:
            yield line
            line, is_begun = following, False
        line, is_begun = f"{line} {word}" if is_begun else line + word, True
    if is_begun:
        yield line


def _columns_of(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _clean(cell: Cell) -> str:
    return printable(" ".join(cell.text.split())) or NONE


def bar(done: int, total: int, style: Style, room: int) -> str:
    """Draw a progress bar, `room` columns wide."""
    full = room * done // total if total else room
    drawn_done, drawn_open = style.bar[0] * full, style.bar[1] * (room - full)
    return style.paint(drawn_done, Colour.GREEN) + style.paint(drawn_open, Colour.DIM)
