"""Fits text into the available width of a drawing, for a viewer with unknown fonts.

Widths are upper bounds for DejaVu Sans, the widest of the requested fonts: in any other, text has room to spare.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

_SANS = {  # em, the width of a regular character
    **dict.fromkeys(" '|,.:;·/\\ijlIJ-", 0.38),
    **dict.fromkeys("frt()[]!", 0.44),
    **dict.fromkeys('abcdeghknopqsuvxyz0123456789EFLPSTY$*?_`"{}', 0.65),
    **dict.fromkeys("ABCDGHKNOQRUVXZ&", 0.8),
}
_MONO = 0.605  # em, the width of any character
_WIDEST = 1.02  # em, the width of M, W, @ and every non-ASCII character
_BOLD = 1.15
MOST_LISTED = 64


class Font(NamedTuple):
    """A requested font; `size` is in the drawing's units."""

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
        """Return the upper bound of a text's width."""
        if self.mono:
            ems = sum(_MONO if character.isascii() else _WIDEST for character in text)
        else:
            ems = sum(_SANS.get(character, _WIDEST) for character in text) * (_BOLD if self.bold else 1)
        return ems * self.size


def sanitize(text: str) -> str:
    """Replace characters without a glyph of their own: controls, bidirectional overrides, combining marks."""
    composed = unicodedata.normalize("NFC", text)
    return "".join(each if each.isprintable() and unicodedata.category(each)[0] != "M" else "�" for each in composed)


def truncate(text: str, room: float, font: Font) -> str:
    """Truncate a text to a width."""
    if font.width(text) <= room:
        return text
    while text and font.width(f"{text}…") > room:
        text = text[:-1]
    return f"{text}…"


def wrap(text: str, room: float, font: Font) -> list[str]:
    """Wrap a text into lines, between words if possible; returns at least one line."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if font.width(longer) <= room:
            lines[-1] = longer
            continue
        lines += [""] if lines[-1] else []
        for character in word:
            if font.width(lines[-1] + character) > room:
                lines.append("")
            lines[-1] += character
    return lines


def fit_list(values: Sequence[str], room: float, font: Font, lines: int) -> list[str]:
    """Write a list in at most so many lines, with the count of values that do not fit: `22, 80, 443 and 61 more`."""
    for shown in range(min(len(values), MOST_LISTED), 0, -1):
        more = f" and {len(values) - shown} more" if shown < len(values) else ""
        wrapped = wrap(", ".join(values[:shown]) + more, room, font)
        if len(wrapped) <= lines:
            return wrapped
    return [truncate(f"{len(values)} in all" if len(values) > 1 else values[0], room, font)]
