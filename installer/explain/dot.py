"""Renders the picture for Graphviz."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from installer.explain.drawing import STYLES
from installer.explain.flows import End, Way
from installer.explain.layout import LEFT, MOST_LINES, VALUES
from installer.explain.text_metrics import Font, fit_list, wrap
from plugin.rules import INBOUND

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from installer.explain.flows import Flow, Flows
    from installer.explain.picture import Picture

HEAD = """digraph pods {
graph [rankdir=LR ranksep=0.4 nodesep=0.15 fontname="sans-serif" fontsize=12];
node [shape=box style=rounded fontname="sans-serif" fontsize=11];"""
STROKES = {Way.THROUGH: "solid", Way.BYPASSED: "dashed", Way.DROPPED: "dotted"}

# Graphviz puts the start of an edge left of its end. To keep the network's side apart from the application's
# in both directions, each node has a rank, and an edge against the ranks is written reversed.
NETWORK, LEFT_LABEL, SIDECAR, RIGHT_LABEL, APPLICATION = range(5)


class Link(NamedTuple):
    """A flow's label with its rank, and the nodes that the flow comes from and goes to."""

    flow: Flow
    rank: int
    sources: list[str]
    targets: list[str]


def render_dot(pictures: Iterable[Picture]) -> str:
    """Write pods as one graph, each as a cluster."""
    pods = (_pod(f"pod{number}_", picture) for number, picture in enumerate(pictures))
    return "\n".join([HEAD, *chain.from_iterable(pods), "}", ""])


def _pod(pod: str, picture: Picture) -> Iterator[str]:
    """Write one pod; the names of its nodes begin with `pod`."""
    links = list(_redirected(picture.flows) if picture.flows else _not_redirected(picture.all_traffic))
    ends = {end for link in links for end in (*link.sources, *link.targets)}
    head = (f"{picture.namespace}/{picture.name}", picture.verdict, *(fact.text for fact in picture.facts))
    yield f"{pod}network [label=Network];"
    yield f"subgraph cluster_{pod} {{"
    yield f"label={_quoted(chain.from_iterable(map(_wrapped, head)))};"
    yield f"{pod}application [label=Application];"
    yield from (
        f"{pod}warning{n} [shape=note label={_quoted(_wrapped(each))}];" for n, each in enumerate(picture.warnings)
    )
    if "dropped" in ends:
        yield f'{pod}dropped [shape=plaintext label="✕"];'
    if picture.flows:
        yield f'subgraph cluster_{pod}sidecar {{ label="istio-proxy";'
        yield from (_sidecar_node(pod, each) for each in sorted(ends - {"network", "application", "dropped"}))
        yield "}"
    yield from (_label(f"{pod}path{number}", link.flow) for number, link in enumerate(links))
    yield "}"
    for number, link in enumerate(links):
        yield from _edges(pod, f"{pod}path{number}", link)


def _redirected(flows: Flows) -> Iterator[Link]:
    inbound = f"{INBOUND}"
    senders = list(dict.fromkeys(f"{flow.port}" for flow in flows.outbound if flow.port)) or ["sidecar"]
    for flow in flows.inbound:
        yield Link(flow, LEFT_LABEL, ["network"], [_end(flow, "application")])
    if flows.own_call:
        yield Link(flows.own_call, LEFT_LABEL, senders, [inbound])
    if flows.arriving:
        yield Link(flows.arriving, RIGHT_LABEL, [inbound], ["application"])
    for flow in flows.outbound:
        yield Link(flow, RIGHT_LABEL, ["application"], [_end(flow, "network")])
    yield Link(flows.leaving, LEFT_LABEL, senders, ["network"])


def _not_redirected(flow: Flow) -> Iterator[Link]:
    if flow.way is Way.DROPPED:
        yield Link(flow, LEFT_LABEL, ["network"], ["dropped"])
    else:
        yield Link(flow, LEFT_LABEL, [], ["network", "application"])


def _end(flow: Flow, across: str) -> str:
    if flow.port:
        return f"{flow.port}"
    if flow.way is Way.DROPPED:
        return "dropped"
    return {End.ACROSS: across, End.SIDECAR: "sidecar", End.BACK: "application"}[flow.end]


def _sidecar_node(pod: str, end: str) -> str:
    label = f":{end}" if end.isdigit() else end
    return f'{pod}{end} [label="{label}"];'


def _label(name: str, flow: Flow) -> str:
    text = _quoted([flow.what, *fit_list(flow.values, LEFT.width, VALUES, MOST_LINES)])
    style = f'style="rounded,filled,{STROKES[flow.way]}" color="{STYLES[flow.way].colour}"'
    return f'{name} [label={text} tooltip={_quoted([str(flow)])} {style} fillcolor="{STYLES[flow.way].fill}"];'


def _edges(pod: str, label: str, link: Link) -> Iterator[str]:
    style = STYLES[link.flow.way]
    stroke = f'style={STROKES[link.flow.way]} color="{style.colour}" penwidth={style.width}'
    for end in link.sources:
        left, right = (f"{pod}{end}", label) if _rank(end) < link.rank else (label, f"{pod}{end}")
        yield f"{left} -> {right} [dir=none {stroke}];"
    for end in link.targets:
        left, right, head = (
            (label, f"{pod}{end}", "forward") if link.rank < _rank(end) else (f"{pod}{end}", label, "back")
        )
        yield f"{left} -> {right} [dir={head} {stroke}];"


def _rank(end: str) -> int:
    return {"network": NETWORK, "application": APPLICATION}.get(end, SIDECAR)


def _wrapped(text: str) -> list[str]:
    return wrap(text, 480, Font(11))


def _quoted(lines: Iterable[str]) -> str:
    r"""Quote lines of text; `\n` is Graphviz' escape for a line break, and `&` begins an entity."""
    escapes = str.maketrans({"\\": r"\\", '"': r"\"", "&": "&amp;"})
    return '"' + r"\n".join(line.translate(escapes) for line in lines) + '"'
