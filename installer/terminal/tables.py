"""Text in columns and lines that fit a terminal, with or without colours. Pure."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from installer.terminal.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

BETWEEN = "   "  # columns, as kubectl does
NARROWEST = 20  # columns: a narrower terminal is treated as this wide
NONE = "-"


class Colour(Enum):
    """Colours of a terminal (ECMA-48, SGR)."""

    PLAIN = ""
    BOLD = "1"
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
        clean = printable(" ".join(text.split()))
        if self.width is None:
            return [self.paint(f"{first}{clean}", colour)]
        lines = textwrap.wrap(
            clean,
            max(self.width, NARROWEST),
            initial_indent=first,
            subsequent_indent=following,
            break_long_words=False,
            break_on_hyphens=False,
        )
        return [self.paint(each, colour) for each in lines]


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
    widths = [max(len(_clean(row[at])) for row in [_titles(columns), *rows]) for at in shown]
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
    made = []
    for cell, width in zip(cells, widths, strict=True):
        text = _clean(cell)
        cut = text if len(text) <= width else f"{text[: max(width - 3, 0)]}..."[:width]
        made.append((cut, cell.colour, width - len(cut)))
    *before, (last, colour, _) = made
    padded = [style.paint(text, colour) + " " * space + BETWEEN for text, colour, space in before]
    return "".join([*padded, style.paint(last, colour)])


def _clean(cell: Cell) -> str:
    return printable(" ".join(cell.text.split())) or NONE


def bar(done: int, total: int, style: Style, room: int) -> str:
    """Draw a progress bar, `room` columns wide."""
    full = room * done // total if total else room
    drawn_done, drawn_open = style.bar[0] * full, style.bar[1] * (room - full)
    return style.paint(drawn_done, Colour.GREEN) + style.paint(drawn_open, Colour.DIM)
