"""The drawing as it is seen: rendered, and measured in the font that draws it."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, groupby, pairwise, permutations
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import ImageChops, ImageDraw

from installer.explain.flows import Way
from installer.explain.layout import NETWORK
from installer.explain.picture import build_picture
from installer.explain.svg import render_svg
from installer.explain.text_metrics import Font, fit_list, sanitize
from tests.explain.drawn import SVG, Area, Drawn
from tests.explain.redirects import LARGEST, TABLE, explained, large

if TYPE_CHECKING:
    from PIL import Image

    from installer.explain.explain import Explanation
    from plugin.redirect import Redirect

pytestmark = pytest.mark.pure

WARNINGS = ("port 8080 is both included and excluded", "a warning of many words " * 20, "x" * 400)
DRAWINGS: dict[str, Explanation] = {
    **{name: explained(redirect, warnings=WARNINGS[: n % 4]) for n, (name, redirect) in enumerate(TABLE.items())},
    "pass": explained(None, reason="namespace kube-system is excluded", warnings=WARNINGS),
    "error": explained(None, decision="error", reason="a key: saw 'x', expected y" * 20),
    "long names": explained(LARGEST, namespace="n" * 63, name="W" * 253, warnings=WARNINGS),
}
each_drawing = pytest.mark.parametrize("explanation", DRAWINGS.values(), ids=DRAWINGS)


def draw(*explanations: Explanation) -> Drawn:
    return Drawn(render_svg(map(build_picture, explanations)))


def assert_tidy(drawn: Drawn) -> None:
    """No box is on another, a text is in its box and clear of others; lines do not cross, one at most runs through a label."""
    for box in drawn.boxes:
        for text in box.texts:
            assert box.area.contains(text.area), text
        for this, that in combinations(box.texts, 2):
            assert not this.area.meets(that.area), (this, that)
    for one, other in combinations(drawn.boxes, 2):
        if one.area.contains(other.area) or other.area.contains(one.area):
            outer, inner = (one, other) if one.area.contains(other.area) else (other, one)
            assert not [text for text in outer.texts if text.area.meets(inner.area)], outer
        else:
            assert not one.area.meets(other.area), (one, other)
    assert not [lines for lines in permutations(drawn.lines, 2) if cross(*lines)]
    labels = [box for box in drawn.boxes if box.tooltip and box.area.left > 100]
    for box in labels:
        assert sum(crosses(line, box.area) for line in drawn.lines) <= 1, box.tooltip


def cross(one: list[tuple[float, ...]], other: list[tuple[float, ...]]) -> bool:
    """Whether a plumb part of one meets a level part of the other."""
    plumb = [(x, min(y, end), max(y, end)) for (x, y), (same, end) in pairwise(one) if x == same]
    level = [(y, min(x, end), max(x, end)) for (x, y), (end, same) in pairwise(other) if y == same]
    return any(top < y < bottom and left < x < right for x, top, bottom in plumb for y, left, right in level)


def crosses(line: list[tuple[float, ...]], area: Area) -> bool:
    inside = Area(area.left + 1, area.top + 1, area.right - 1, area.bottom - 1)
    pairs = pairwise(line)
    return any(inside.meets(Area(min(a, c), min(b, d), max(a, c), max(b, d))) for (a, b), (c, d) in pairs)


@given(large)
@example(LARGEST)
def test_every_redirect_is_drawn_tidily(redirect: Redirect) -> None:
    assert_tidy(draw(explained(redirect)))


@given(st.text(max_size=90), st.text(max_size=300), st.text(max_size=600))
@example("<script>alert(1)</script>", "\0\x1b[31m\u202e\ud800", "]]> & \"quoted\" 'text'")
def test_manifest_text_is_escaped_and_stays_in_its_box(name: str, reason: str, warning: str) -> None:
    drawn = draw(explained(None, name=name, reason=reason, warnings=(warning,)))
    assert_tidy(drawn)
    assert {each.tag.removeprefix(SVG) for each in drawn.root.iter()} <= {
        "svg", "title", "desc", "g", "rect", "text", "polyline", "polygon",
    }  # fmt: skip
    assert drawn.root.findtext(f"{SVG}title") == f"Packet paths of shop/{sanitize(name)}"


@each_drawing
def test_svg_renders_whole_on_its_own_background(explanation: Explanation) -> None:
    drawn = draw(explanation)
    image = drawn.image()
    assert image.size == (int(drawn.root.attrib["width"]), int(drawn.root.attrib["height"]))
    assert image.getchannel("A").getextrema() == (255, 255)
    inner = (12, 12, image.width - 12, image.height - 12)
    margin = image.convert("RGB")
    ImageDraw.Draw(margin).rectangle(inner, fill="#ffffff")
    assert margin.getcolors() == [(image.width * image.height, (255, 255, 255))]


@each_drawing
def test_no_pixel_of_a_text_is_outside_its_box(explanation: Explanation) -> None:
    drawn = draw(explanation)
    ink = ImageChops.difference(drawn.image().convert("RGB"), drawn.image_without_text().convert("RGB"))
    assert ink.getbbox()
    rubber = ImageDraw.Draw(ink)
    leaves = drawn.leaves
    for box in drawn.boxes:
        for area in [box.area] if box in leaves else [text.area for text in box.texts]:
            rubber.rectangle((area.left - 1, area.top - 1, area.right + 1, area.bottom + 1), fill="#000000")
    assert ink.getbbox() is None


def test_lines_have_the_colours_of_the_legend() -> None:
    drawn = draw(explained(TABLE["everything at once"]))
    image = drawn.image().convert("RGB")
    samples = {}
    for way, what in (
        (Way.THROUGH, "TCP to all other ports"),
        (Way.BYPASSED, "Excluded ports"),
        (Way.DROPPED, "Packets of no connection"),
    ):
        x, y = drawn.text(way.value).at
        assert colour(image, x - 60, x - 26, y - 4.5) == colour(image, *before(drawn, what)), way
        samples[way] = colour(image, *before(drawn, what))
    assert len(set(samples.values())) == len(Way)


def test_lines_differ_without_colours() -> None:
    """Through is unbroken, round is dashed, dropped is dotted."""
    drawn = draw(explained(TABLE["everything at once"]))
    image = drawn.image().convert("L")
    through, rounds, dropped = (
        longest_stroke(image, *before(drawn, what))
        for what in ("TCP to all other ports", "Excluded ports", "Packets of no connection")
    )
    assert dropped < 5 < rounds < 20 < through


def before(drawn: Drawn, what: str) -> tuple[float, float, float]:
    """Where a flow's line comes from the network to its label: from x to x, at y."""
    area = drawn.label(what).area
    return NETWORK.x + NETWORK.width + 2, area.left - 2, (area.top + area.bottom) / 2


def strip(image: Image.Image, left: float, right: float, y: float) -> bytes:
    """The pixels of a level line."""
    return image.crop((int(left), int(y), int(right), int(y) + 1)).tobytes()


def colour(image: Image.Image, left: float, right: float, y: float) -> bytes:
    """The most frequent of the strong colours along a level line."""
    pixels = strip(image, left, right, y)
    colours = Counter(pixels[n : n + 3] for n in range(0, len(pixels), 3))
    return next(seen for seen, _ in colours.most_common() if max(seen) - min(seen) > 90)


def longest_stroke(image: Image.Image, left: float, right: float, y: float) -> int:
    dark = groupby(strip(image, left, right, y), key=lambda seen: seen < 170)
    return max(len(list(run)) for is_dark, run in dark if is_dark)


@each_drawing
def test_text_has_contrast_in_its_box(explanation: Explanation) -> None:
    """At least 4.5 to 1, as WCAG asks for."""
    for box in draw(explanation).boxes:
        for text in box.texts:
            if len(text.text) > 1:  # an exclamation mark stands on its triangle
                light, dark = sorted((luminance(box.fill), luminance(text.colour)), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, text


def luminance(colour: str) -> float:
    parts = (int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@each_drawing
def test_svg_has_a_text_description_and_no_external_reference(explanation: Explanation) -> None:
    drawn = draw(explanation)
    described = drawn.root.find(f"{SVG}desc")
    assert drawn.root.attrib["role"] == "img"
    assert described is not None
    assert described.text == "; ".join(build_picture(explanation).sentences)
    for fetched in ("href", "url(", "@import", "<style", "<script", "<image"):
        assert fetched not in drawn.svg
    assert drawn.svg.count("http") == 1  # the name of SVG itself


def test_a_long_list_is_truncated_and_complete_in_the_tooltip() -> None:
    label = draw(explained(LARGEST)).label("Excluded ports")
    assert label.texts[2].text.endswith(" and 56 more")
    assert all(f"{port}" in label.tooltip for port in LARGEST.exclude_inbound_ports)


@given(st.lists(st.integers(1, 65535).map(str), min_size=1, max_size=200), st.integers(60, 400), st.integers(1, 3))
def test_truncated_list_counts_the_omitted_values(values: list[str], room: int, lines: int) -> None:
    font = Font(12, mono=True)
    written = fit_list(values, room, font, lines)
    text = " ".join(written)
    assert len(written) <= lines
    assert all(font.width(line) <= room for line in written)
    if text != ", ".join(values):
        shown, _, more = text.removesuffix(" more").rpartition(" and ")
        assert (len(shown.split(", ")) + int(more) == len(values)) if shown else text.startswith(f"{len(values)} in")


def test_pods_are_drawn_one_below_the_other() -> None:
    alone = [draw(explained(redirect)) for redirect in (TABLE["default"], TABLE["lists"])]
    both = draw(explained(TABLE["default"]), explained(TABLE["lists"]))
    heights = [int(each.root.attrib["height"]) for each in alone]
    image = both.image().convert("RGB")
    assert image.height == sum(heights)
    upper = image.crop((0, 0, image.width, heights[0]))
    lower = image.crop((0, heights[0], image.width, image.height))
    for part, drawn in ((upper, alone[0]), (lower, alone[1])):
        assert ImageChops.difference(part, drawn.image().convert("RGB")).getbbox() is None
