"""Renders the picture as SVG for any viewer: with a background, without external references, and with a text description."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

from installer.explain.diagram import SMALL, TITLE, draw, draw_label, draw_place
from installer.explain.drawing import (
    FRAME,
    GROUND,
    INK,
    MUTED,
    PAPER,
    STYLES,
    Box,
    Point,
    alert,
    arrow,
    badge,
    box,
    dead_end,
    element,
    tooltip,
    write,
)
from installer.explain.flows import Way
from installer.explain.layout import APPLICATION, LONE, MARGIN, NETWORK, PAD, POD, WIDTH, label_of, lay_out
from installer.explain.text_metrics import Font, truncate, wrap

if TYPE_CHECKING:
    from collections.abc import Iterable
    from xml.etree.ElementTree import Element

    from installer.explain.flows import Flow, Flows
    from installer.explain.picture import Fact, Picture

NAME, WORDS = Font(23, bold=True), Font(14)
ROOM = WIDTH - 2 * MARGIN


def render_svg(pictures: Iterable[Picture]) -> str:
    """Draw pods, one below the other, as one document."""
    root = ElementTree.Element("svg", {"xmlns": "http://www.w3.org/2000/svg"})
    title, words = element(root, "title", id="title"), element(root, "desc", id="words")
    element(root, "rect", width="100%", height="100%", fill=PAPER)
    names: list[str] = []
    sentences: list[str] = []
    height = 0.0
    for picture in pictures:
        height += _pod(element(root, "g", transform=f"translate(0 {height:.0f})"), picture)
        names.append(f"{picture.namespace}/{picture.name}")
        sentences += picture.sentences
    title.text = f"Packet paths of {', '.join(names)}"
    words.text = "; ".join(sentences)
    size = {"width": f"{WIDTH}", "height": f"{height:.0f}", "viewBox": f"0 0 {WIDTH} {height:.0f}"}
    root.attrib |= {**size, "role": "img", "aria-labelledby": "title", "aria-describedby": "words"}
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _pod(parent: Element, picture: Picture) -> float:
    """Draw one pod; returns the height that it takes."""
    y = _header(parent, picture)
    if picture.flows:
        where = lay_out(picture.flows, y)
        draw(parent, where, has_machines=picture.flows.has_machines)
        y = _legend(parent, picture.flows, where.pod.bottom + 16)
    else:
        y = _not_redirected(parent, picture.all_traffic, y)
    return _warnings(parent, picture.warnings, y) + MARGIN


def _header(parent: Element, picture: Picture) -> float:
    name, lines = f"{picture.namespace}/{picture.name}", wrap(picture.verdict, ROOM, WORDS)
    place = Box(MARGIN, 18, ROOM, 44 + 20 * len(lines))
    group = box(parent, place, fill=PAPER, stroke=PAPER)
    tooltip(group, f"{name}, {picture.verdict}")
    write(group, Point(MARGIN, 44), truncate(name, ROOM, NAME), NAME)
    for number, text in enumerate(lines):
        write(group, Point(MARGIN, 72 + 20 * number), text, WORDS, MUTED)
    return _facts(parent, picture.facts, place.bottom + 4)


def _facts(parent: Element, facts: Iterable[Fact], y: float) -> float:
    x, bottom = float(MARGIN), y
    for fact in facts:
        style = STYLES[fact.way]
        chip = Box(x, y, TITLE.width(fact.text) + 2 * PAD, 28)
        group = box(parent, chip, fill=style.fill, stroke=style.colour, dashes=style.dashes, radius=14)
        write(group, Point(chip.middle.x, y + 18.5), fact.text, TITLE, style.colour, anchor="middle")
        x, bottom = chip.right + 8, chip.bottom + 18
    return bottom


def _not_redirected(parent: Element, flow: Flow, y: float) -> float:
    """Draw the one flow of a pod that is not redirected."""
    label = label_of(LONE, flow, y + 36)
    network, application = (column.box(label.box.y - 16, label.box.bottom + 16) for column in (NETWORK, APPLICATION))
    box(parent, POD.box(y, label.box.bottom + 36), fill=GROUND, stroke=FRAME)
    if flow.way is Way.DROPPED:
        dead_end(parent, Point(network.right, label.y), Point(label.box.right + 48, label.y))
    else:
        arrow(parent, flow.way, Point(label.box.x, label.y), Point(network.right, label.y))
        arrow(parent, flow.way, Point(label.box.right, label.y), Point(application.x, label.y))
    draw_place(parent, network, "Network")
    draw_place(parent, application, "Application")
    draw_label(parent, label)
    return label.box.bottom + 36


def _legend(parent: Element, flows: Flows, y: float) -> float:
    """Draw the legend of the ways that occur."""
    group, x = box(parent, Box(MARGIN, y, ROOM, 30), fill=PAPER, stroke=PAPER), float(MARGIN)
    ways = {flow.way for flow in flows.inbound + flows.outbound} | {Way.THROUGH}
    for way in (way for way in Way if way in ways):
        start, end = Point(x, y + 15), Point(x + 48, y + 15)
        if way is Way.DROPPED:
            dead_end(group, start, end)
        else:
            arrow(group, way, start, end)
        write(group, Point(x + 62, y + 19.5), way.value, SMALL)
        x += 62 + SMALL.width(way.value) + 20
    for number in (1, 2, 3):
        badge(group, Point(x + 22 * number, y + 15), number)
    write(group, Point(x + 84, y + 19.5), "the first match decides", SMALL)
    return y + 30


def _warnings(parent: Element, warnings: Iterable[str], y: float) -> float:
    for warning in warnings:
        lines = wrap(warning, ROOM - 60, WORDS)
        place = Box(MARGIN, y + 12, ROOM, 20 + 20 * len(lines))
        group = box(parent, place, fill=PAPER, stroke=INK)
        alert(group, Point(MARGIN + 24, place.y + 20))
        for number, text in enumerate(lines):
            write(group, Point(MARGIN + 48, place.y + 25 + 20 * number), text, WORDS)
        y = place.bottom
    return y
