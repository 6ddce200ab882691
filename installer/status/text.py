"""Writes the status for people: the summary first, unhealthy nodes with their remedies, the rest in numbers. Pure."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from installer.fleet.node_health import State
from installer.kube.names import DAEMONSET
from installer.status.model import Health, Severity
from installer.terminal.ages import age
from installer.terminal.printable import printable
from installer.terminal.tables import NONE, Cell, Colour, Column, bar, table
from installer.terminal.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from installer.status.model import ClusterStatus, ControlPlane, Finding, NodeStatus, Progress
    from installer.terminal.tables import Style

SHOWN = 20  # nodes of each kind, unless all are asked for
KINDS = 5  # versions, backends and configurations that are named with their numbers
BAR = 40  # columns, at most

_OF_HEALTH = {
    Health.HEALTHY: Colour.GREEN,
    Health.PROGRESSING: Colour.YELLOW,
    Health.DEGRADED: Colour.RED,
    Health.UNKNOWN: Colour.YELLOW,
}
_OF_SEVERITY = {
    Severity.ERROR: ("! ", Colour.RED),
    Severity.UNKNOWN: ("? ", Colour.YELLOW),
    Severity.INFO: ("- ", Colour.PLAIN),
}
_COMMAND = re.compile(r": ((?:kubectl|helm|install-cni) .*[^.])\.?$")
_COLUMNS = (
    Column("NODE"),
    Column("STATE"),
    Column("SINCE", 6),
    Column("VERSION", 5),
    Column("BACKEND", 2),
    Column("CONFLIST", 1),
    Column("REPAIRS", 4),
    Column("PODS", 3),
)
_WIDE = (*_COLUMNS, Column("DIRECTORY"), Column("FORM"), Column("MISSING"), Column("SETTINGS"), Column("AGENT"))


def render_status(cluster: ClusterStatus, now: datetime, style: Style, *, wide: bool = False) -> str:
    """Write it; `wide` writes all nodes and columns, however many there are."""
    blocks = (
        _head(cluster, style),
        _planes(cluster, now, style),
        findings_lines(cluster.findings, style),
        _numbers(cluster, now, style),
        _unhealthy(cluster, now, style, wide=wide),
        _healthy(cluster, now, style, wide=wide),
    )
    return "\n\n".join("\n".join(block) for block in map(list, blocks) if block) + "\n"


def _progress_line(progress: Progress, style: Style) -> str:
    """Write how far a change is: with a bar for a terminal that is wide enough."""
    percent = 100 * progress.done // progress.total if progress.total else 100
    numbers = f"{progress.done:,} of {progress.total:,} nodes ({percent} %)"
    room = min(BAR, (style.width or 0) - len(f"{progress.kind}  {numbers}"))
    if not style.bar or room < len(progress.kind):
        return f"{progress.kind}: {numbers}"
    return f"{progress.kind} {bar(progress.done, progress.total, style, room)} {numbers}"


def _head(cluster: ClusterStatus, style: Style) -> Iterator[str]:
    yield from style.wrapped(cluster.summary, colour=_OF_HEALTH[cluster.health])
    if cluster.progress:
        yield _progress_line(cluster.progress, style)


def _planes(cluster: ClusterStatus, now: datetime, style: Style) -> Iterator[str]:
    if cluster.planes:
        columns = (
            Column("CONTROL PLANE"),
            Column("ACTIVE"),
            Column("STATUS"),
            Column("GENERATION", 2),
            Column("AGE", 1),
        )
        yield from table(columns, [_plane(each, now) for each in cluster.planes], style)
        for plane in cluster.planes:
            if plane.active and plane.message and plane.status not in ("ERROR", "HEALTHY"):
                yield from style.wrapped(plane.message, "  ", "  ")
    elif cluster.agents and not cluster.out and not any(each.severity is Severity.UNKNOWN for each in cluster.findings):
        yield from style.wrapped("No IstioControlPlane: the chart's settings apply.")
    if cluster.agents:
        agents = cluster.agents
        how = (
            "parked: no node has an agent"
            if agents.parked
            else f"{agents.ready:,} of {agents.desired:,} pods ready, {agents.updated:,} updated"
        )
        going = "; it is being deleted" if agents.terminating else ""
        text = f"DaemonSet {agents.namespace}/{DAEMONSET}: {how}{going}; image {agents.image or NONE}"
        yield from style.wrapped(text, "", "  ")


def _plane(plane: ControlPlane, now: datetime) -> list[Cell]:
    status = plane.status or ("ERROR" if plane.problems else NONE)
    if plane.terminating:
        status += ", terminating"
    colour = {"HEALTHY": Colour.GREEN, "ERROR": Colour.RED}.get(status, Colour.PLAIN)
    judged = f"{plane.generation}" + (f" ({plane.observed} seen)" if plane.observed != plane.generation else "")
    return [
        Cell(plane.title),
        Cell("yes" if plane.active else "no"),
        Cell(status, colour),
        Cell(judged),
        Cell(age(plane.created, now) if plane.created else NONE),
    ]


def findings_lines(findings: Sequence[Finding], style: Style) -> Iterator[str]:
    """Write findings, each with its remedy."""
    for finding in findings:
        mark, colour = _OF_SEVERITY[finding.severity]
        yield from style.wrapped(finding.message, mark, "  ", colour)
        yield from _remedy(finding.remedy, style)


def _remedy(remedy: str, style: Style) -> Iterator[str]:
    """Write what to do; a command that it ends with stays on a line of its own, however long, so that it can be copied."""
    command = _COMMAND.search(remedy)
    if remedy:
        yield from style.wrapped(remedy[: command.start(1)] if command else remedy, "  ", "  ")
    if command:
        yield f"    {printable(command[1])}"


def _numbers(cluster: ClusterStatus, now: datetime, style: Style) -> Iterator[str]:
    if not cluster.nodes:
        return
    states = Counter(each.state for each in cluster.nodes)
    counts = [f"{states[state]:,} {state.value}" for state in State if states[state]]
    lines = {
        "Nodes": f"{len(cluster.nodes):,}: {', '.join(counts)}",
        "Version": _kinds(cluster.nodes, lambda each: each.version),
        "Backend": _kinds(cluster.nodes, lambda each: each.backend),
        "Conflist": _kinds(cluster.nodes, lambda each: each.file),
        "Redirected": _redirected(cluster.nodes),
        "Last repair": _last_repair(cluster.nodes, now),
    }
    for label, value in lines.items():
        if value:
            yield from style.wrapped(value, f"{label + ':':14}", " " * 14)


def _kinds(nodes: Sequence[NodeStatus], value: Callable[[NodeStatus], str]) -> str:
    counts = Counter(filter(None, map(value, nodes)))
    named = [f"{kind} ({number:,})" for kind, number in sorted(counts.items(), key=lambda each: (-each[1], each[0]))]
    more = [f"and {len(named) - KINDS:,} more"] if len(named) > KINDS else []
    return ", ".join(named[:KINDS] + more)


def _redirected(nodes: Sequence[NodeStatus]) -> str:
    reported = [each.redirected for each in nodes if each.redirected is not None]
    is_partial = len(nodes) - len(reported)
    return (
        counted(sum(reported), "pod")
        + (f" (of {counted(len(reported), 'node')}; the others do not say)" if is_partial else "")
        if reported
        else ""
    )


def _last_repair(nodes: Sequence[NodeStatus], now: datetime) -> str:
    repaired = [(each.repairs.last, each.name, each.repairs) for each in nodes if each.repairs and each.repairs.last]
    if not repaired:
        return ""
    last, name, repairs = max(repaired, key=lambda each: each[:2])
    return f"{age(last, now)} ago on {name}, {repairs.file}"


def _unhealthy(cluster: ClusterStatus, now: datetime, style: Style, *, wide: bool) -> Iterator[str]:
    nodes = cluster.unhealthy if wide else _some(cluster.unhealthy)
    if not nodes:
        return
    heads, *rows = _rows(nodes, now, style, wide=wide)
    yield heads
    for node, row in zip(nodes, rows, strict=True):
        yield row
        why = ": ".join(filter(None, (node.reason, node.message)))
        yield from style.wrapped(why, "  ", "  ")
        yield from _remedy(node.remedy, style)
    named = {each.name for each in nodes}
    rest = [each for each in cluster.unhealthy if each.name not in named]
    if rest:
        reasons = _kinds(rest, lambda each: f"{each.state.value} {each.reason}".strip())
        yield from style.wrapped(f"And {len(rest):,} more: {reasons}; -o wide lists them all.")


def _some(nodes: Sequence[NodeStatus]) -> Sequence[NodeStatus]:
    """Take as many as are shown, of each reason some, in the order in which they are."""
    before: Counter[tuple[State, str]] = Counter()
    ranked = []
    for at, node in enumerate(nodes):
        ranked.append((before[node.state, node.reason], at))
        before[node.state, node.reason] += 1
    return [nodes[at] for at in sorted(at for _, at in sorted(ranked)[:SHOWN])]


def _healthy(cluster: ClusterStatus, now: datetime, style: Style, *, wide: bool) -> Iterator[str]:
    nodes = cluster.healthy
    if not nodes:
        return
    if len(nodes) > SHOWN and not wide:
        yield from style.wrapped(f"{len(nodes):,} nodes are healthy; -o wide lists them.")
        return
    yield from _rows(nodes, now, style, wide=wide)


def _rows(nodes: Sequence[NodeStatus], now: datetime, style: Style, *, wide: bool) -> list[str]:
    return table(_WIDE if wide else _COLUMNS, [_row(each, now, wide=wide) for each in nodes], style, whole=wide)


def _row(node: NodeStatus, now: datetime, *, wide: bool) -> list[Cell]:
    repairs = NONE if node.repairs is None else f"{node.repairs.count}"
    if node.repairs and node.repairs.last:
        repairs += f" ({age(node.repairs.last, now)} ago)"
    texts = [
        age(node.since, now) if node.since else NONE,
        node.version,
        node.backend,
        node.file,
        repairs,
        NONE if node.redirected is None else str(node.redirected),
    ]
    if wide:
        texts += [node.directory, node.form, ",".join(node.missing_features), node.settings, node.pod]
    colour = Colour.RED if node.state.is_lost else Colour.YELLOW if node.state.is_changing else Colour.GREEN
    return [Cell(node.name), Cell(node.state.value, colour), *map(Cell, texts)]
