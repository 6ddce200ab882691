"""The Events of a status that changes: each thing is told once, and what goes on as it was is not told again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from installer.controller.control_plane_events import Event, build_events
from installer.controller.status import Fault, Fleet, build_status
from installer.fleet.node_health import NodeHealth, State
from tests.controller.samples import NOW, resource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

pytestmark = pytest.mark.pure

FAILED, UNKNOWN, REMOVING, REPAIRING, UPDATING, READY, REMOVED = State
INVALID = [Fault("Invalid", "spec.tag: saw 1.1, expected string, integer")]
SUPERSEDED = [Fault("Superseded", "another is older")]
FAILING = Fleet(installed=True, verdicts=[NodeHealth("node1", FAILED, "Broken", "says why")], version="")
NOTHING: Mapping[str, Any] = {}


def of(*states: State, generation: int = 1, removal: str = "", why: str = "Broken") -> dict[str, Any]:
    """Write the status of a resource whose nodes are so."""
    verdicts = [NodeHealth(f"node{number}", state, why, "says why") for number, state in enumerate(states, 1)]
    return written(Fleet(not removal, verdicts, "1", removal), (), generation)


def wrong(faults: Sequence[Fault], generation: int = 1) -> dict[str, Any]:
    return written(None, faults, generation)


def written(fleet: Fleet | None, faults: Sequence[Fault], generation: int) -> dict[str, Any]:
    mesh = resource()
    mesh["metadata"]["generation"] = generation
    return build_status(mesh, fleet, faults, NOW, {})


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (NOTHING, of(READY), ["RolloutCompleted"]),
        (NOTHING, of(UPDATING), ["RolloutStarted"]),
        (of(UPDATING), of(UPDATING, READY), []),
        (of(UPDATING), of(READY), ["RolloutCompleted"]),
        (of(READY), of(READY), []),
        (of(READY), of(READY, generation=2), ["RolloutCompleted"]),
        (of(READY), of(UPDATING, generation=2), ["RolloutStarted"]),
        (of(UPDATING), of(UPDATING, generation=2), ["RolloutStarted"]),
        (of(READY), of(REPAIRING), []),
        (of(REPAIRING), of(READY), ["Recovered"]),
        (of(FAILED), of(READY), ["Recovered"]),
        (of(FAILED), of(READY, generation=2), ["RolloutCompleted"]),
        (of(READY), of(FAILED, READY, UNKNOWN), ["NodeUnhealthy", "NodeUnhealthy"]),
        (of(FAILED), of(FAILED), []),
        (of(FAILED), of(FAILED, FAILED), ["NodeUnhealthy"]),
        (of(FAILED), of(FAILED, why="Otherwise"), ["NodeUnhealthy"]),
        (of(FAILED), of(UNKNOWN), []),
        (NOTHING, wrong(INVALID), ["InvalidSettings"]),
        (wrong(INVALID), wrong(INVALID, generation=2), []),
        (wrong(INVALID), wrong([Fault("Invalid", "something else")], generation=2), ["InvalidSettings"]),
        (wrong(INVALID), wrong([Fault("WrongNamespace", INVALID[0].message)]), ["WrongNamespace"]),
        (wrong(INVALID), of(READY, generation=2), ["RolloutCompleted"]),
        (wrong(INVALID), of(READY), ["Recovered"]),
        (of(READY), wrong(SUPERSEDED), ["Superseded"]),
        (of(READY), written(FAILING, INVALID, 1), ["InvalidSettings"]),
        (of(READY), of(UPDATING, removal="x"), ["UninstallStarted"]),
        (of(UPDATING, removal="x"), of(UPDATING, READY, removal="x"), []),
        (of(UPDATING, removal="x"), of(FAILED, removal="x"), ["NodeUnhealthy"]),
        (of(READY), of(FAILED, removal="x"), ["UninstallStarted", "NodeUnhealthy"]),
        (of(FAILED, removal="x"), of(FAILED, removal="x"), []),
        (of(UPDATING, removal="x"), of(READY, removal="x"), ["Uninstalled"]),
        (of(READY, removal="x"), of(READY, removal="x"), []),
        (of(READY, removal="x"), of(UPDATING, generation=2), ["RolloutStarted"]),
    ],
)
def test_status_changes_make_events(before: Mapping[str, Any], after: Mapping[str, Any], told: list[str]) -> None:
    found = list(build_events(before, after, terminating=False))
    assert [each.reason for each in found] == told
    bad = {"NodeUnhealthy", "InvalidSettings", "WrongNamespace", "Superseded"}
    assert [each.warning for each in found] == [each in bad for each in told]


def test_release_of_a_deleted_resource_makes_no_event_here() -> None:
    assert [*build_events(of(UPDATING, removal="x"), of(READY, removal="x"), terminating=True)] == []


def test_messages_name_the_generation_or_the_node() -> None:
    (rolled_out,) = build_events(NOTHING, of(READY, generation=4), terminating=False)
    assert rolled_out.message == "generation 4: 1 of 1 nodes redirect pods with these settings"
    (unhealthy,) = build_events(of(READY), of(FAILED), terminating=False)
    assert unhealthy == Event(warning=True, reason="NodeUnhealthy", message="node node1: Broken: says why")
    (invalid,) = build_events(NOTHING, wrong(INVALID), terminating=False)
    assert invalid.message == INVALID[0].message
    (removing,) = build_events(of(READY), of(UPDATING, removal="the resource is deleted"), terminating=True)
    assert "removing the plugin: the resource is deleted" in removing.message
