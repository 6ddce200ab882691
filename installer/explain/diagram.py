"""Draws the flows of a redirected pod as laid out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from installer.explain.drawing import (
    FRAME,
    GROUND,
    INK,
    MUTED,
    PAPER,
    STYLES,
    Point,
    arrow,
    badge,
    box,
    dead_end,
    line,
    tooltip,
    write,
)
from installer.explain.flows import End, Way
from installer.explain.layout import LINE, LOOP, PAD, VALUES
from installer.explain.text_metrics import Font
from plugin.rules import DNS_LISTENER, INBOUND, OUTBOUND

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from installer.explain.drawing import Box
    from installer.explain.layout import Label, Layout, Listener

HEADING, TITLE, SMALL = Font(15, bold=True), Font(13, bold=True), Font(12)
PORT = Font(15, bold=True, mono=True)
LISTENERS = {INBOUND: "inbound", OUTBOUND: "outbound", DNS_LISTENER: "DNS"}


def draw(parent: Element, where: Layout, *, has_machines: bool) -> None:
    """Draw the flows of a redirected pod."""
    pod = box(parent, where.pod, fill=GROUND, stroke=FRAME)
    write(pod, Point(where.pod.right - 16, where.pod.y + 26), "the pod's network namespace", SMALL, MUTED, anchor="end")
    _lines(parent, where)
    draw_place(parent, where.network, "Network")
    draw_place(parent, where.application, "Application", *(("and virtual", "machines") if has_machines else ()))
    _sidecar(parent, where)
    _heading(parent, where.inbound_heading, "Inbound", "network → application")
    _heading(parent, where.outbound_heading, "Outbound", "application → network")
    _nothing(parent, where.nothing_inbound, "No inbound port is included")
    _nothing(parent, where.nothing_outbound, "No outbound IP range or port is included")
    for label in where.labels:
        draw_label(parent, label)


def _lines(parent: Element, where: Layout) -> None:
    """Draw all lines except the sidecar's; boxes then cover them, so that a line appears to run through its label."""
    network, application, sidecar = where.network.right, where.application.x, where.sidecar
    for label in where.inbound_bypass:
        _inbound_bypass(parent, where, label)
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
    for label in where.outbound_bypass:
        if label.flow.end is End.BACK:
            _there_and_back(parent, label, application)
        else:
            arrow(parent, Way.BYPASSED, Point(application, label.y), Point(network, label.y))


def _inbound_bypass(parent: Element, where: Layout, label: Label) -> None:
    start, y = Point(where.network.right, label.y), label.y
    if label.flow.way is Way.DROPPED:
        dead_end(parent, start, Point(label.box.right + 48, y))
    elif label.flow.end is End.SIDECAR:
        x = where.sidecar.x + 42
        arrow(parent, Way.BYPASSED, start, Point(x, y), Point(x, where.sidecar.y))
    else:
        arrow(parent, Way.BYPASSED, start, Point(where.application.x, y))


def _there_and_back(parent: Element, label: Label, x: float) -> None:
    edge, way = label.box.right, label.flow.way
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


def draw_place(parent: Element, place: Box, *names: str) -> None:
    """Draw a source or destination of traffic."""
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


def draw_label(parent: Element, label: Label) -> None:
    """Draw a flow's box."""
    flow, place, style = label.flow, label.box, STYLES[label.flow.way]
    group = box(parent, place, fill=style.fill, stroke=style.colour, dashes=style.dashes)
    tooltip(group, str(flow))
    write(group, Point(place.x + PAD, place.y + 21), flow.what, TITLE)
    for number, text in enumerate(label.values):
        write(group, Point(place.x + PAD, place.y + 39 + LINE * number), text, VALUES, style.colour)
    if flow.order:
        badge(group, Point(place.right - PAD - 4, place.y + 16.5), flow.order)
