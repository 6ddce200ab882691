"""A drawing as it is seen: an SVG's boxes and texts, measured in the font that draws them, and its pixels."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree

import resvg_py
from PIL import Image, ImageFont

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

SVG = "{http://www.w3.org/2000/svg}"
FONTS = "/usr/share/fonts/truetype/dejavu"  # Debian's fonts-dejavu-core
FILES = {
    (mono, bold): f"{FONTS}/DejaVuSans{'Mono' * mono}{'-Bold' * bold}.ttf"
    for mono in (False, True)
    for bold in (False, True)
}
SCALE = 8  # fonts are measured so many times larger, as the measure is whole pixels


class Area(NamedTuple):
    """A rectangle by its edges."""

    left: float
    top: float
    right: float
    bottom: float

    def contains(self, other: Area) -> bool:
        return (
            self.left <= other.left
            and self.top <= other.top
            and other.right <= self.right
            and other.bottom <= self.bottom
        )

    def meets(self, other: Area) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


@dataclass(frozen=True)
class Text:
    text: str
    area: Area
    colour: str
    at: tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A box with its own texts, not those of boxes in it; `tooltip` is empty if it has none."""

    area: Area
    fill: str
    texts: tuple[Text, ...]
    tooltip: str


class Drawn:
    """A document with one pod."""

    def __init__(self, svg: str) -> None:
        self.svg = svg
        self.root = ElementTree.fromstring(svg)  # noqa: S314 - our own
        self.boxes = [_box(group) for group in self.root.iter(f"{SVG}g") if group.get("class") == "box"]
        self.lines = [
            [tuple(map(float, point.split(","))) for point in each.attrib["points"].split()]
            for each in self.root.iter(f"{SVG}polyline")
        ]

    @property
    def leaves(self) -> list[Box]:
        """The boxes with no box in them."""
        inner = [a for a, b in _pairs(self.boxes) if b.area.contains(a.area)]
        outer = [b for a in inner for b in self.boxes if b is not a and b.area.contains(a.area)]
        return [box for box in self.boxes if box not in outer]

    def label(self, what: str) -> Box:
        """Find the box of a flow by its first words; the first such."""
        return next(box for box in self.boxes if box.texts and box.tooltip and box.texts[0].text == what)

    def text(self, text: str) -> Text:
        return next(each for box in self.boxes for each in box.texts if each.text == text)

    def image(self, svg: str | None = None) -> Image.Image:
        """Render it, without any font but these and without a background but its own."""
        png = resvg_py.svg_to_bytes(svg_string=svg or self.svg, skip_system_fonts=True, font_files=list(FILES.values()))
        return Image.open(io.BytesIO(bytes(png)))

    def image_without_text(self) -> Image.Image:
        root = ElementTree.fromstring(self.svg)  # noqa: S314 - our own
        for parent in list(root.iter()):
            for text in parent.findall(f"{SVG}text"):
                parent.remove(text)
        return self.image(ElementTree.tostring(root, encoding="unicode"))


def _pairs(boxes: list[Box]) -> Iterator[tuple[Box, Box]]:
    for a, b in combinations(boxes, 2):
        yield a, b
        yield b, a


def _box(group: Element) -> Box:
    rect, title = group.find(f"{SVG}rect"), group.find(f"{SVG}title")
    assert rect is not None
    x, y, width, height = (float(rect.attrib[key]) for key in ("x", "y", "width", "height"))
    return Box(
        Area(x, y, x + width, y + height),
        rect.attrib["fill"],
        tuple(_text(each) for each in group.findall(f"{SVG}text")),
        (title.text or "") if title is not None else "",
    )


def _text(element: Element) -> Text:
    text, get = element.text or "", element.attrib
    mono, bold = "monospace" in get["font-family"], get["font-weight"] == "bold"
    font = _font(mono, bold, float(get["font-size"]))
    anchor = {"start": "ls", "middle": "ms", "end": "rs"}[get["text-anchor"]]
    x, y = float(get["x"]), float(get["y"])
    left, top, right, bottom = (edge / SCALE for edge in font.getbbox(text, anchor=anchor))
    return Text(text, Area(x + left, y + top, x + right, y + bottom), get["fill"], (x, y))


@cache
def _font(mono: bool, bold: bool, size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FILES[mono, bold], size * SCALE)
