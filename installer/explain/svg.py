"""The picture as SVG, for any viewer: its own background, no fonts, styles or scripts to fetch, and all of it in words."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

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
    line,
    tooltip,
    write,
)
from installer.explain.layout import (
    APPLICATION,
    LINE,
    LONE,
    LOOP,
    MARGIN,
    NETWORK,
    PAD,
    POD,
    VALUES,
    WIDTH,
    label_of,
    layout,
)
from installer.explain.lettering import Font, clean, shortened, wrapped
from installer.explain.picture import End, Way
from plugin.rules import DNS_LISTENER, INBOUND, OUTBOUND

if TYPE_CHECKING:
    from collections.abc import Iterable
    from xml.etree.ElementTree import Element

    from installer.explain.layout import Label, Layout, Listener
    from installer.explain.picture import Fact, Path, Paths, Picture

NAME, HEADING, TITLE = Font(23, bold=True), Font(15, bold=True), Font(13, bold=True)
WORDS, SMALL, PORT = Font(14), Font(12), Font(15, bold=True, mono=True)
ROOM = WIDTH - 2 * MARGIN
LISTENERS = {INBOUND: "inbound", OUTBOUND: "outbound", DNS_LISTENER: "DNS"}


def svg(pictures: Iterable[Picture]) -> str:
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
    title.text = clean(f"Packet paths of {', '.join(names)}")
    words.text = clean("; ".join(sentences))
    size = {"width": f"{WIDTH}", "height": f"{height:.0f}", "viewBox": f"0 0 {WIDTH} {height:.0f}"}
    root.attrib |= {**size, "role": "img", "aria-labelledby": "title", "aria-describedby": "words"}
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _pod(parent: Element, picture: Picture) -> float:
    """Draw one pod; returns the height that it takes."""
    y = _header(parent, picture)
    if picture.paths:
        where = layout(picture.paths, y)
        _redirected(parent, where, picture.paths)
        y = _legend(parent, picture.paths, where.pod.bottom + 16)
    else:
        y = _not_redirected(parent, picture.all_traffic, y)
    return _warnings(parent, picture.warnings, y) + MARGIN


def _header(parent: Element, picture: Picture) -> float:
    name, lines = f"{picture.namespace}/{picture.name}", wrapped(picture.verdict, ROOM, WORDS)
    place = Box(MARGIN, 18, ROOM, 44 + 20 * len(lines))
    group = box(parent, place, fill=PAPER, stroke=PAPER)
    tooltip(group, f"{name}, {picture.verdict}")
    write(group, Point(MARGIN, 44), shortened(name, ROOM, NAME), NAME)
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


def _redirected(parent: Element, where: Layout, paths: Paths) -> None:
    pod = box(parent, where.pod, fill=GROUND, stroke=FRAME)
    write(pod, Point(where.pod.right - 16, where.pod.y + 26), "the pod's network namespace", SMALL, MUTED, anchor="end")
    _lines(parent, where)
    _place(parent, where.network, "Network")
    _place(parent, where.application, "Application", *(("and virtual", "machines") if paths.has_machines else ()))
    _sidecar(parent, where)
    _heading(parent, where.inbound_heading, "Inbound", "network → application")
    _heading(parent, where.outbound_heading, "Outbound", "application → network")
    _nothing(parent, where.nothing_inbound, "No inbound port is included")
    _nothing(parent, where.nothing_outbound, "No outbound IP range or port is included")
    for label in where.labels:
        _label(parent, label)


def _lines(parent: Element, where: Layout) -> None:
    """Draw all lines but the sidecar's; boxes then cover them, so that a line runs through its label."""
    network, application, sidecar = where.network.right, where.application.x, where.sidecar
    for label in where.inbound_round:
        _inbound_round(parent, where, label)
    for labels, start, end in (
        (where.inbound, network, sidecar.x),
        (where.arriving, sidecar.right, application),
        (where.outbound, application, sidecar.right),
        (where.leaving, sidecar.x, network),
    ):
        for label in labels:
            arrow(parent, Way.THROUGH, Point(start, label.y), Point(end, label.y))
    for label in where.own_call:
        _there_and_back(parent, label, sidecar.x)
    for label in where.outbound_round:
        if label.path.end is End.BACK:
            _there_and_back(parent, label, application)
        else:
            arrow(parent, Way.ROUND, Point(application, label.y), Point(network, label.y))


def _inbound_round(parent: Element, where: Layout, label: Label) -> None:
    start, y = Point(where.network.right, label.y), label.y
    if label.path.way is Way.DROPPED:
        dead_end(parent, start, Point(label.box.right + 48, y))
    elif label.path.end is End.SIDECAR:
        x = where.sidecar.x + 42
        arrow(parent, Way.ROUND, start, Point(x, y), Point(x, where.sidecar.y))
    else:
        arrow(parent, Way.ROUND, start, Point(where.application.x, y))


def _there_and_back(parent: Element, label: Label, x: float) -> None:
    edge, way = label.box.right, label.path.way
    arrow(parent, way, Point(x, label.y + LOOP), Point(edge, label.y + LOOP))
    arrow(parent, way, Point(edge, label.y - LOOP), Point(x, label.y - LOOP))


def _sidecar(parent: Element, where: Layout) -> None:
    place = where.sidecar
    group = box(parent, place, fill=PAPER, stroke=STYLES[Way.THROUGH].colour)
    write(group, Point(place.middle.x, place.y + 24), "istio-proxy", HEADING, INK, anchor="middle")
    write(group, Point(place.middle.x, place.y + 41), "the sidecar", SMALL, MUTED, anchor="middle")
    for each in where.inbound_listeners:
        line(group, Way.THROUGH, Point(place.x, each.y), Point(place.right, each.y))
        _listener(group, each, each.box.right + 10, "start")
    for each in where.outbound_listeners:
        exit_x, exit_y = place.x + 44, where.leaving[0].y
        line(
            group,
            Way.THROUGH,
            Point(place.right, each.y),
            Point(exit_x, each.y),
            Point(exit_x, exit_y),
            Point(place.x, exit_y),
        )
        _listener(group, each, each.box.x - 10, "end")


def _listener(sidecar: Element, listener: Listener, name_x: float, anchor: str) -> None:
    colour = STYLES[Way.THROUGH].colour
    write(sidecar, Point(name_x, listener.y - 7), LISTENERS[listener.port], SMALL, MUTED, anchor=anchor)
    group = box(sidecar, listener.box, fill=colour, stroke=colour, radius=4)
    middle = listener.box.middle
    write(group, Point(middle.x, middle.y + 5), f":{listener.port}", PORT, PAPER, anchor="middle")


def _place(parent: Element, place: Box, *names: str) -> None:
    group = box(parent, place, fill=PAPER, stroke=FRAME)
    y = place.middle.y + 5 - 9 * (len(names) - 1)
    for number, name in enumerate(names):
        font, colour = (SMALL, MUTED) if number else (TITLE, INK)
        write(group, Point(place.middle.x, y + 18 * number), name, font, colour, anchor="middle")


def _heading(parent: Element, place: Box, text: str, more: str) -> None:
    group = box(parent, place, fill=GROUND, stroke=GROUND)
    write(group, Point(place.x, place.y + 20), text, HEADING)
    write(group, Point(place.right, place.y + 20), more, SMALL, MUTED, anchor="end")


def _nothing(parent: Element, place: Box | None, text: str) -> None:
    if place:
        group = box(parent, place, fill=GROUND, stroke=FRAME)
        write(group, Point(place.middle.x, place.middle.y + 4), text, SMALL, MUTED, anchor="middle")


def _label(parent: Element, label: Label) -> None:
    path, place, style = label.path, label.box, STYLES[label.path.way]
    group = box(parent, place, fill=style.fill, stroke=style.colour, dashes=style.dashes)
    tooltip(group, str(path))
    write(group, Point(place.x + PAD, place.y + 21), path.what, TITLE)
    for number, text in enumerate(label.values):
        write(group, Point(place.x + PAD, place.y + 39 + LINE * number), text, VALUES, style.colour)
    if path.order:
        badge(group, Point(place.right - PAD - 4, place.y + 16.5), path.order)


def _not_redirected(parent: Element, path: Path, y: float) -> float:
    """Draw the one path of a pod that is not redirected."""
    label = label_of(LONE, path, y + 36)
    network, application = (column.box(label.box.y - 16, label.box.bottom + 16) for column in (NETWORK, APPLICATION))
    box(parent, POD.box(y, label.box.bottom + 36), fill=GROUND, stroke=FRAME)
    left, right, middle = Point(network.right, label.y), Point(application.x, label.y), label.box.middle
    if path.way is Way.DROPPED:
        dead_end(parent, left, Point(label.box.right + 48, label.y))
    else:
        arrow(parent, path.way, middle, left)
        arrow(parent, path.way, middle, right)
    _place(parent, network, "Network")
    _place(parent, application, "Application")
    _label(parent, label)
    return label.box.bottom + 36


def _legend(parent: Element, paths: Paths, y: float) -> float:
    """Draw the legend, of what there is."""
    group, x = box(parent, Box(MARGIN, y, ROOM, 30), fill=PAPER, stroke=PAPER), float(MARGIN)
    ways = {path.way for path in paths.inbound + paths.outbound} | {Way.THROUGH}
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
    write(group, Point(x + 84, y + 19.5), "the first that fits a packet decides", SMALL)
    return y + 30


def _warnings(parent: Element, warnings: Iterable[str], y: float) -> float:
    for warning in warnings:
        lines = wrapped(warning, ROOM - 60, WORDS)
        place = Box(MARGIN, y + 12, ROOM, 20 + 20 * len(lines))
        group = box(parent, place, fill=PAPER, stroke=INK)
        alert(group, Point(MARGIN + 24, place.y + 20))
        for number, text in enumerate(lines):
            write(group, Point(MARGIN + 48, place.y + 25 + 20 * number), text, WORDS)
        y = place.bottom
    return y
