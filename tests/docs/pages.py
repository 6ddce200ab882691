"""What the documentation consists of: its pages, and the fenced blocks in them."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CHART_README = ROOT / "charts" / "istio-cni" / "README.md"
PAGES = (*sorted(DOCS.glob("*.md")), *sorted(ROOT.glob("*.md")), CHART_README)

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A fenced block: where it is (`docs/install.md:12`), its language, and its lines without the fence's indentation."""

    where: str
    language: str
    lines: tuple[str, ...]


def blocks(page: Path) -> Iterator[Block]:
    """Find the fenced blocks of a page."""
    text = page.read_text()
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        lines = tuple(each.removeprefix(found["indent"]) for each in found["text"].splitlines())
        yield Block(f"{page.relative_to(ROOT)}:{line}", found["language"], lines)


def sections(page: Path) -> Iterator[tuple[str, list[Block]]]:
    """Go through a page's sections: the heading of each, and the fenced blocks below it, as far as the next."""
    lines = page.read_text().splitlines()
    found = {each: int(each.where.rpartition(":")[2]) for each in blocks(page)}
    fenced = {number for each, start in found.items() for number in range(start, start + len(each.lines) + 2)}
    headings = [at for at, line in enumerate(lines, 1) if line.startswith("#") and at not in fenced]
    for start, end in itertools.pairwise([*headings, len(lines) + 1]):
        yield lines[start - 1].lstrip("# "), [each for each, at in found.items() if start < at < end]


def all_blocks() -> list[Block]:
    """Find the fenced blocks of all pages."""
    return [block for page in PAGES for block in blocks(page)]


def without_blocks(page: Path) -> str:
    """Return a page's text without its fenced blocks."""
    return _FENCE.sub("", page.read_text())
