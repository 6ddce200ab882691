"""Writes what changed between two statuses, a line each, for a log or a pipe. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from installer.status.model import Severity
from installer.terminal.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from installer.status.model import ClusterStatus, ControlPlane, NodeStatus

_SEVERITIES = {Severity.ERROR: "error", Severity.UNKNOWN: "unknown", Severity.INFO: "info"}


def describe_changes(before: ClusterStatus | None, after: ClusterStatus) -> list[str]:
    """Describe what is new; of the first status, all but the healthy nodes.

    The number of redirected pods changes all the time and is left out.
    """
    lines = [after.summary] if before is None or before.summary != after.summary else []
    lines += _changed(_planes(before), _planes(after), "the IstioControlPlane was deleted")
    lines += _findings(before, after)
    nodes = {each.name: _node(each) for each in (after.unhealthy if before is None else after.nodes)}
    lines += _changed({each.name: _node(each) for each in before.nodes} if before else {}, nodes, "the node is gone")
    return [printable(" ".join(each.split())) for each in lines]


def _changed(before: Mapping[str, str], after: Mapping[str, str], removal: str) -> Iterator[str]:
    yield from (f"{name}: {text}" for name, text in after.items() if before.get(name) != text)
    yield from (f"{name}: {removal}" for name in before if name not in after)


def _findings(before: ClusterStatus | None, after: ClusterStatus) -> Iterator[str]:
    old = {each.message: each for each in before.findings} if before else {}
    new = {each.message: each for each in after.findings}
    for message, finding in new.items():
        if message not in old:
            stop = "" if message.endswith(("?", ".")) or not finding.remedy else "."
            yield f"{_SEVERITIES[finding.severity]}: {message}{stop} {finding.remedy}".strip()
    yield from (f"resolved: {message}" for message in old if message not in new)


def _planes(cluster: ClusterStatus | None) -> dict[str, str]:
    return {each.title: _plane(each) for each in cluster.planes} if cluster else {}


def _plane(plane: ControlPlane) -> str:
    parts = (
        plane.status or "no status",
        f"generation {plane.generation}",
        "" if plane.active else "not active",
        "is being deleted" if plane.terminating else "",
    )
    why = plane.message if plane.status != "HEALTHY" else ""
    return ": ".join(filter(None, (", ".join(filter(None, parts)), why)))


def _node(node: NodeStatus) -> str:
    if not node.state.is_healthy:
        return ": ".join(filter(None, (node.state.value, node.reason, node.message, node.remedy)))
    repaired = f"{node.repairs.count} repairs" if node.repairs and node.repairs.count else ""
    file = node.file if node.state.value == "Ready" else ""
    return ", ".join(filter(None, (node.state.value, node.version, node.backend, file, repaired)))
