"""Lays out the drawing of a redirected pod.

Inbound flows go from left to right, outbound flows go back; a label is at the side from which its traffic
comes. The sidecar is in the middle; flows that bypass it are above (inbound) and below (outbound).
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from installer.explain.drawing import Box
from installer.explain.flows import End, Way
from installer.explain.text_metrics import Font, fit_list
from plugin.rules import INBOUND, OUTBOUND

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from installer.explain.flows import Flow, Flows
    from plugin.values import Port

WIDTH, MARGIN, PAD = 1240, 24, 12
VALUES = Font(12, mono=True)
MOST_LINES = 2  # of values
LINE = 17  # from one line of values to the next
LOOP = 11  # from a label's middle to the start of its line, if the line returns
_GAP, _BETWEEN, _HEADING, _NOTHING, _LISTENER = 12, 28, 30, 34, 84


class Column(NamedTuple):
    """A strip of the drawing, from its top to its bottom."""

    x: float
    width: float

    def box(self, top: float, bottom: float) -> Box:
        """Cut a box out of it."""
        return Box(self.x, top, self.width, bottom - top)


NETWORK, POD, APPLICATION = Column(24, 104), Column(148, 1068), Column(1096, 104)
LEFT, SIDECAR, RIGHT = Column(172, 288), Column(500, 240), Column(780, 288)
LONE = Column(456, 328)  # the one flow of a pod that is not redirected


class Label(NamedTuple):
    """A flow's box, with the values that fit."""

    flow: Flow
    box: Box
    values: list[str]

    @property
    def y(self) -> float:
        """The height of the flow's line."""
        return self.box.middle.y


class Listener(NamedTuple):
    """A port of the sidecar, at the edge at which its traffic arrives."""

    port: Port
    box: Box

    @property
    def y(self) -> float:
        """The point from which its traffic's line continues."""
        return self.box.middle.y


class Layout(NamedTuple):
    """The layout of a redirected pod; `arriving` and `leaving` are the sidecar's own flows.

    `nothing_inbound` and `nothing_outbound` are the places of the notes that nothing goes through the sidecar, if so.
    """

    network: Box
    pod: Box
    sidecar: Box
    application: Box
    inbound_heading: Box
    inbound_bypass: list[Label]
    inbound: list[Label]
    nothing_inbound: Box | None
    own_call: list[Label]
    inbound_listeners: list[Listener]
    arriving: list[Label]
    outbound_heading: Box
    outbound: list[Label]
    nothing_outbound: Box | None
    outbound_listeners: list[Listener]
    outbound_bypass: list[Label]
    leaving: list[Label]

    @property
    def labels(self) -> Iterator[Label]:
        """All labels, in reading order."""
        yield from (*self.inbound_bypass, *self.inbound, *self.own_call, *self.arriving)
        yield from (*self.outbound, *self.leaving, *self.outbound_bypass)


def lay_out(flows: Flows, top: float) -> Layout:
    """Lay out the flows of a pod, from `top` down."""
    first = top + 2 * _HEADING
    # Ports that the sidecar answers are nearest to it, so that their line crosses no other.
    inbound_bypass = _stacked(
        LEFT, sorted(_not_through(flows.inbound), key=lambda each: each.end is End.SIDECAR), first
    )
    edge = _bottom(inbound_bypass) + _BETWEEN

    y = edge + 56
    inbound = _stacked(LEFT, _through(flows.inbound), y)
    nothing_inbound = None if inbound else LEFT.box(y, y + _NOTHING)
    under = _under(inbound, y + _NOTHING + _GAP)
    own_call = _stacked(LEFT, [flows.own_call] if flows.own_call else [], under)
    inbound_listeners = list(_inbound_listener(inbound, own_call))
    arriving = [_beside(RIGHT, flows.arriving, each) for each in inbound_listeners if flows.arriving]

    y = _under([*own_call, *arriving], under)
    outbound_heading = RIGHT.box(y, y + _HEADING)
    y += _HEADING + 6
    outbound = _stacked(RIGHT, _through(flows.outbound), y)
    nothing_outbound = None if outbound else RIGHT.box(y, y + _NOTHING)
    outbound_listeners = list(_outbound_listeners(outbound))
    beside = [_beside(LEFT, flows.leaving, each) for each in outbound_listeners[-1:]]
    leaving = beside or _stacked(LEFT, [flows.leaving], y)
    sidecar = SIDECAR.box(edge, _bottom([*outbound, *leaving]) + 16)

    outbound_bypass = _stacked(RIGHT, _not_through(flows.outbound), sidecar.bottom + _BETWEEN)
    bottom = _bottom(outbound_bypass)
    return Layout(
        network=NETWORK.box(first, bottom),
        pod=POD.box(top, bottom + 20),
        sidecar=sidecar,
        application=APPLICATION.box(first, bottom),
        inbound_heading=LEFT.box(first - _HEADING - 6, first - 6),
        inbound_bypass=inbound_bypass,
        inbound=inbound,
        nothing_inbound=nothing_inbound,
        own_call=own_call,
        inbound_listeners=inbound_listeners,
        arriving=arriving,
        outbound_heading=outbound_heading,
        outbound=outbound,
        nothing_outbound=nothing_outbound,
        outbound_listeners=outbound_listeners,
        outbound_bypass=outbound_bypass,
        leaving=leaving,
    )


def _through(flows: Iterable[Flow]) -> list[Flow]:
    return [flow for flow in flows if flow.way is Way.THROUGH]


def _not_through(flows: Iterable[Flow]) -> list[Flow]:
    return [flow for flow in flows if flow.way is not Way.THROUGH]


def _stacked(column: Column, flows: Iterable[Flow], y: float) -> list[Label]:
    labels: list[Label] = []
    for flow in flows:
        labels.append(label_of(column, flow, _under(labels, y)))
    return labels


def _beside(column: Column, flow: Flow, listener: Listener) -> Label:
    label = label_of(column, flow, 0)
    return label._replace(box=label.box._replace(y=listener.y - label.y))


def label_of(column: Column, flow: Flow, y: float) -> Label:
    """Make the label of a flow, from `y` down."""
    values = fit_list(flow.values, column.width - 2 * PAD, VALUES, MOST_LINES)
    return Label(flow, column.box(y, y + 32 + LINE * len(values)), values)


def _bottom(labels: list[Label]) -> float:
    return max(label.box.bottom for label in labels)


def _under(labels: list[Label], y: float) -> float:
    return _bottom(labels) + _GAP if labels else y


def _inbound_listener(inbound: list[Label], own_call: list[Label]) -> Iterator[Listener]:
    """One for all that arrives, down to where the sidecar's own calls come in again: the upper of their two lines."""
    ends = [label.y for label in inbound] + [label.y - LOOP for label in own_call]
    if ends:
        yield Listener(INBOUND, Box(SIDECAR.x, ends[0] - 18, _LISTENER, ends[-1] - ends[0] + 30))


def _outbound_listeners(outbound: list[Label]) -> Iterator[Listener]:
    for port, group in groupby(outbound, key=lambda label: label.flow.port):
        ends = [label.y for label in group]
        place = Box(SIDECAR.x + SIDECAR.width - _LISTENER, ends[0] - 18, _LISTENER, ends[-1] - ends[0] + 36)
        yield Listener(port or OUTBOUND, place)
