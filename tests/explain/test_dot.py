"""The text for Graphviz, as Graphviz reads it."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from installer.explain.dot import STROKES, render_dot
from installer.explain.drawing import STYLES
from installer.explain.flows import Way
from installer.explain.picture import build_picture
from installer.explain.text_metrics import sanitize
from tests.explain.drawn import SVG
from tests.explain.redirects import TABLE, explained, large

if TYPE_CHECKING:
    from collections.abc import Iterable

    from installer.explain.explain import Explanation

pytestmark = pytest.mark.pure

GRAPHVIZ = "/usr/bin/dot"


def graphviz(text: str, form: str) -> bytes:
    """Have Graphviz read a graph, and write it in a form of its own; it warns of nothing."""
    done = subprocess.run([GRAPHVIZ, f"-T{form}"], input=text.encode(), capture_output=True, check=True, timeout=60)
    assert done.stderr == b""
    return done.stdout


class Graph:
    """A graph as Graphviz read it: nodes by name, and which nodes traffic goes between."""

    def __init__(self, *explanations: Explanation) -> None:
        read = json.loads(graphviz(render_dot(map(build_picture, explanations)), "dot_json"))
        objects: list[dict[str, Any]] = read["objects"]
        self.nodes = {each["name"]: each for each in objects if "nodes" not in each and "subgraphs" not in each}
        self.clusters = {each["name"]: each for each in objects if each["name"].startswith("cluster")}
        names = {each["_gvid"]: each["name"] for each in objects}
        self.edges = [{**each, "tail": names[each["tail"]], "head": names[each["head"]]} for each in read["edges"]]

    def labels(self) -> Iterable[str]:
        return (name for name in self.nodes if "path" in name)

    def ends(self, label: str) -> set[tuple[str, str]]:
        """Where a flow's traffic comes from and where it goes: what an edge without an arrowhead links is a source."""
        found = set()
        for edge in self.edges:
            if label in (edge["tail"], edge["head"]):
                other = edge["head"] if edge["tail"] == label else edge["tail"]
                points_away = (edge["dir"] == "forward") == (edge["tail"] == label)
                assert edge["dir"] == "none" or points_away
                found.add(("from" if edge["dir"] == "none" else "to", other.removeprefix("pod0_")))
        return found


@settings(max_examples=20)
@given(large)
def test_each_flow_is_drawn_to_its_end(redirect: Any) -> None:
    drawn, graph = build_picture(explained(redirect)), Graph(explained(redirect))
    assert drawn.flows
    for flows, source, across in (
        (drawn.flows.inbound, "network", "application"),
        (drawn.flows.outbound, "application", "network"),
    ):
        for flow in flows:
            target = {Way.THROUGH: f"{flow.port}", Way.DROPPED: "dropped", Way.BYPASSED: across}[flow.way]
            target = {"The sidecar's own ports": "sidecar", "Loopback": "application"}.get(flow.what, target)
            ends = [graph.ends(label) for label in graph.labels() if graph.nodes[label]["tooltip"] == str(flow)]
            assert {("from", source), ("to", target)} in ends, flow


def test_dot_uses_the_styles_of_svg() -> None:
    graph = Graph(explained(TABLE["everything at once"]))
    looks = {(edge["color"], edge["style"]) for edge in graph.edges}
    assert looks == {(STYLES[way].colour, STROKES[way]) for way in Way}


def test_sidecar_flows_begin_at_its_outbound_ports() -> None:
    graph = Graph(explained(TABLE["everything at once"]))
    words = {graph.nodes[label]["label"].split(r"\n")[0]: graph.ends(label) for label in graph.labels()}
    assert words["Sent by the sidecar"] == {("from", "15001"), ("from", "15053"), ("to", "network")}
    assert words["To the pod's own address"] == {("from", "15001"), ("from", "15053"), ("to", "15006")}
    assert words["From source address"] == {("from", "15006"), ("to", "application")}


@pytest.mark.parametrize(("decision", "end"), [("pass", "application"), ("error", "dropped")])
def test_a_pod_that_is_not_redirected_has_one_path(decision: str, end: str) -> None:
    graph = Graph(explained(None, decision=decision))
    (label,) = graph.labels()
    assert ("to", end) in graph.ends(label)
    assert not any("sidecar" in name for name in graph.clusters)


@settings(max_examples=20)
@given(st.text(max_size=60), st.text(max_size=60))
@example('&lt;"]; x -> y', "\\N\\n\\")
def test_manifest_text_is_quoted_in_dot(name: str, warning: str) -> None:
    texts = ElementTree.fromstring(  # noqa: S314 - our own
        graphviz(render_dot([build_picture(explained(None, name=name, warnings=(warning,)))]), "svg")
    )
    shown = letters("".join(each.text or "" for each in texts.iter(f"{SVG}text")))
    assert letters(f"shop/{sanitize(name)}pass: it is a meshed pod") in shown
    assert letters(sanitize(warning)) in shown
    classes = Counter(each.get("class") for each in texts.iter(f"{SVG}g"))
    assert (classes["cluster"], classes["node"], classes["edge"]) == (1, 4, 2)


def letters(text: str) -> str:
    """Without blanks, at which lines are broken."""
    return "".join(text.split())


def test_pods_stand_apart_in_one_graph() -> None:
    graph = Graph(explained(TABLE["default"]), explained(None))
    assert {"cluster_pod0_", "cluster_pod1_"} <= set(graph.clusters)
    prefixes = {(edge["tail"][:5], edge["head"][:5]) for edge in graph.edges}
    assert prefixes == {("pod0_", "pod0_"), ("pod1_", "pod1_")}


@pytest.mark.parametrize("redirect", [*TABLE.values(), None], ids=[*TABLE, "pass"])
def test_graphviz_renders_the_output(redirect: Any) -> None:
    assert b"</svg>" in graphviz(render_dot([build_picture(explained(redirect, warnings=("beware",)))]), "svg")
