"""The elements of a picture in SVG: boxes with text, lines with arrowheads.

Lines differ by colour and by stroke, so that they are distinct without colours. Every text is in a box that is wide
enough for it; a box's tooltip has the complete text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree

from installer.explain.flows import Way
from installer.explain.text_metrics import Font

if TYPE_CHECKING:
    from collections.abc import Iterable
    from xml.etree.ElementTree import Element

INK, MUTED, FRAME, PAPER, GROUND = "#16202c", "#55606e", "#b9c2cd", "#ffffff", "#f5f7f9"


class Style(NamedTuple):
    """The style of a way: colour, width and dashes of its lines, fill of its boxes."""

    colour: str
    width: float
    dashes: str
    fill: str


STYLES = {
    Way.THROUGH: Style("#0b57a4", 3.5, "none", "#e4effa"),
    Way.BYPASSED: Style("#9a4f00", 2, "9 5", "#fff6e6"),
    Way.DROPPED: Style("#a3123f", 3, "2 5", "#fdebf0"),
}


class Point(NamedTuple):
    """A place, in the drawing's units, from its upper left corner."""

    x: float
    y: float


class Box(NamedTuple):
    """A rectangle."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.y + self.height

    @property
    def middle(self) -> Point:
        """Its middle."""
        return Point(self.x + self.width / 2, self.y + self.height / 2)


def element(parent: Element, tag: str, **attributes: object) -> Element:
    """Add an element; an attribute's underscores become dashes, a trailing one is dropped."""
    return ElementTree.SubElement(
        parent, tag, {key.strip("_").replace("_", "-"): _text(value) for key, value in attributes.items()}
    )


def tooltip(parent: Element, text: str) -> None:
    """Add a tooltip."""
    element(parent, "title").text = text


def box(parent: Element, place: Box, *, fill: str, stroke: str, dashes: str = "none", radius: float = 7) -> Element:
    """Draw a box; add its content to the returned group."""
    group = element(parent, "g", class_="box")
    element(
        group,
        "rect",
        x=place.x,
        y=place.y,
        width=place.width,
        height=place.height,
        rx=radius,
        fill=fill,
        stroke=stroke,
        stroke_dasharray=dashes,
    )
    return group


def write(parent: Element, at: Point, text: str, font: Font, colour: str = INK, *, anchor: str = "start") -> None:
    """Write a line of text; `at` is on its baseline, at its start, middle or end according to `anchor`."""
    element(
        parent,
        "text",
        x=at.x,
        y=at.y,
        fill=colour,
        font_family=font.family,
        font_size=font.size,
        font_weight="bold" if font.bold else "normal",
        text_anchor=anchor,
    ).text = text


def line(parent: Element, way: Way, *points: Point) -> None:
    """Draw a line without an arrowhead."""
    style = STYLES[way]
    element(
        parent,
        "polyline",
        points=_points(points),
        fill="none",
        stroke=style.colour,
        stroke_width=style.width,
        stroke_dasharray=style.dashes,
        stroke_linejoin="round",
    )


def arrow(parent: Element, way: Way, *points: Point) -> None:
    """Draw a line with an arrowhead; its last segment must be horizontal or vertical."""
    tip, before = points[-1], points[-2]
    towards = Point(_sign(tip.x - before.x), _sign(tip.y - before.y))
    neck = Point(tip.x - 11 * towards.x, tip.y - 11 * towards.y)
    line(parent, way, *points[:-1], neck)
    corners = (
        tip,
        Point(neck.x + 6 * towards.y, neck.y + 6 * towards.x),
        Point(neck.x - 6 * towards.y, neck.y - 6 * towards.x),
    )
    element(parent, "polygon", points=_points(corners), fill=STYLES[way].colour)


def dead_end(parent: Element, *points: Point) -> None:
    """Draw a line of dropped traffic, which ends in a cross."""
    line(parent, Way.DROPPED, *points)
    x, y = points[-1]
    for side in (-1, 1):
        element(
            parent,
            "line",
            x1=x - 7,
            y1=y - 7 * side,
            x2=x + 7,
            y2=y + 7 * side,
            stroke=STYLES[Way.DROPPED].colour,
            stroke_width=4,
        )


def badge(parent: Element, middle: Point, number: int) -> None:
    """Draw a number in a circle."""
    element(parent, "circle", cx=middle.x, cy=middle.y, r=9, fill=PAPER, stroke=FRAME)
    write(parent, Point(middle.x, middle.y + 4), str(number), Font(11), MUTED, anchor="middle")


def alert(parent: Element, middle: Point) -> None:
    """Draw a triangle with an exclamation mark."""
    x, y = middle
    corners = (Point(x, y - 10), Point(x + 12, y + 10), Point(x - 12, y + 10))
    element(parent, "polygon", points=_points(corners), fill=INK, stroke=INK, stroke_width=2, stroke_linejoin="round")
    write(parent, Point(x, y + 8), "!", Font(14, bold=True), PAPER, anchor="middle")


def _points(points: Iterable[Point]) -> str:
    return " ".join(f"{_text(point.x)},{_text(point.y)}" for point in points)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _text(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
