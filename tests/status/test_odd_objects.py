"""Whatever of an object is missing or null, `status` says something, and controller and judge read it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from installer.controller import plan
from installer.fleet import objects
from installer.status.changes import describe_changes
from installer.status.data import as_json
from installer.status.text import render_status
from installer.terminal.tables import Style
from tests.status.objects import (
    NAMES,
    NAMESPACE,
    NOW,
    answers,
    daemonset,
    istios_daemonset,
    node,
    plane,
    pod,
    report,
    summarize,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from installer.status.model import Answers

pytestmark = pytest.mark.pure

REPORTED: dict[str, Any] = {
    "plugin": {"path": "/opt/cni/bin/istio-cni"},
    "backend": {"name": "nft", "missing": [{"feature": "tproxy", "reason": "no module"}]},
    "repairs": {"count": 1, "last": {"time": "2026-05-01T11:00:00Z", "file": "f"}},
}
REST = answers(
    daemonsets=[daemonset(at_most="10%"), istios_daemonset()],
    reports=[report(each, **REPORTED) for each in NAMES],
    nodes=[node(each, taints=[{"key": "a", "effect": "NoSchedule"}]) for each in NAMES],
    pods=[pod("node-2", "CrashLoopBackOff", "0/1"), pod("node-1"), pod("node-3", "Running", "0/1")],
    planes=[plane(), plane("young", deletionTimestamp="2026-05-01T11:00:00Z")],
)
NAMED = {("metadata",), ("metadata", "name"), ("metadata", "namespace")}  # the API server holds nothing without
Path = tuple[str | int, ...]


def paths(of: Any, at: Path = ()) -> Iterator[Path]:
    """Yield the path of every field below."""
    for key, each in of.items() if isinstance(of, dict) else enumerate(of) if isinstance(of, list) else ():
        yield (*at, key)
        yield from paths(each, (*at, key))


def without(thing: dict[str, Any], path: Path, *, null: bool) -> dict[str, Any]:
    changed: Any = deepcopy(thing)
    at = changed
    for step in path[:-1]:
        at = at[step]
    if null and isinstance(at, dict):
        at[path[-1]] = None
    else:
        del at[path[-1]]
    return dict(changed)


def say_everything(found: Answers) -> None:
    """Do all that is done with objects: judge, and write for people, programs and pipes; then as the controller does."""
    for now in (NOW, NOW + timedelta(days=1)):
        seen = summarize(found, now)
        assert render_status(seen, now, Style(), wide=True)
        assert as_json(seen)
        assert describe_changes(None, seen)
    reports = {each["metadata"]["name"]: objects.read_report(each) for each in found.reports}  # type: ignore[union-attr]
    world = plan.World(
        resources=[],
        daemonset=found.daemonsets[0] if found.daemonsets else None,  # type: ignore[index]
        nodes={each["metadata"]["name"]: objects.read_node(each) for each in found.nodes},  # type: ignore[union-attr]
        reports=reports,
        pods=objects.by_node(map(objects.read_agent_pod, found.pods)),  # type: ignore[arg-type]
    )
    plan.judge_fleet(world, plan.make_plan(world, NAMESPACE), {}, NOW)


@pytest.mark.parametrize("null", [False, True], ids=["missing", "null"])
@pytest.mark.parametrize("part", [each.name for each in fields(REST) if each.name != "namespace"])
def test_every_field_is_optional(part: str, null: bool) -> None:
    things: list[Any] = list(getattr(REST, part))
    for at, thing in enumerate(things[:2]):  # the others are alike
        for path in paths(thing):
            if path not in NAMED:
                odd = without(thing, path, null=null)
                try:
                    changed: dict[str, Any] = {part: [*things[:at], odd, *things[at + 1 :]]}
                    say_everything(replace(REST, **changed))
                except (LookupError, TypeError, ValueError, AttributeError) as error:
                    pytest.fail(f"{path}: {error!r}")


def test_object_with_only_a_name_is_read() -> None:
    bare: dict[str, Any] = {
        part.name: [{"metadata": {"name": "x", "namespace": NAMESPACE}}] for part in fields(REST)[:-1]
    }
    say_everything(replace(REST, **bare))
