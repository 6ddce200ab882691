"""Fitting text into the room it has on a drawing whose viewer's fonts nobody knows.

Widths are upper bounds for DejaVu Sans, the widest of the fonts that are asked for: in any other, text has room to spare.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

_SANS = {  # em, of a regular letter
    **dict.fromkeys(" '|,.:;·/\\ijlIJ-", 0.38),
    **dict.fromkeys("frt()[]!", 0.44),
    **dict.fromkeys('abcdeghknopqsuvxyz0123456789EFLPSTY$*?_`"{}', 0.65),
    **dict.fromkeys("ABCDGHKNOQRUVXZ&", 0.8),
}
_MONO = 0.605  # em, of any letter
_WIDEST = 1.02  # em, of M, W, @, and of all that is not ASCII
_BOLD = 1.15
MOST_LISTED = 64


class Font(NamedTuple):
    """A font by what it asks the viewer for; `size` in the drawing's units."""

    size: float
    bold: bool = False
    mono: bool = False

    @property
    def family(self) -> str:
        """The families to try, in order."""
        if self.mono:
            return "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
        return "'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"

    def width(self, text: str) -> float:
        """How wide a text is at most."""
        if self.mono:
            ems = sum(_MONO if letter.isascii() else _WIDEST for letter in text)
        else:
            ems = sum(_SANS.get(letter, _WIDEST) for letter in text) * (_BOLD if self.bold else 1)
        return ems * self.size


def clean(text: str) -> str:
    """Replace what is not seen as a letter of its own: controls, what turns text round, marks that stack on a letter."""
    composed = unicodedata.normalize("NFC", text)
    return "".join(letter if letter.isprintable() and not _is_mark(letter) else "�" for letter in composed)


def _is_mark(letter: str) -> bool:
    return unicodedata.category(letter).startswith("M")


def shortened(text: str, room: float, font: Font) -> str:
    """Cut a text off where its room ends."""
    if font.width(text) <= room:
        return text
    while text and font.width(f"{text}…") > room:
        text = text[:-1]
    return f"{text}…"


def wrapped(text: str, room: float, font: Font) -> list[str]:
    """Break a text into lines, between words where that can be; at least one line."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if font.width(longer) <= room:
            lines[-1] = longer
            continue
        lines += [""] if lines[-1] else []
        for letter in word:
            if font.width(lines[-1] + letter) > room:
                lines.append("")
            lines[-1] += letter
    return lines


def listed(values: Sequence[str], room: float, font: Font, lines: int) -> list[str]:
    """Write a list in so many lines, with the number of those that had no room: `22, 80, 443 and 61 more`."""
    for shown in range(min(len(values), MOST_LISTED), 0, -1):
        more = f" and {len(values) - shown} more" if shown < len(values) else ""
        written = wrapped(", ".join(values[:shown]) + more, room, font)
        if len(written) <= lines:
            return written
    return [shortened(f"{len(values)} in all" if len(values) > 1 else values[0], room, font)]
