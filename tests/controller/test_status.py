"""The status of a resource: counts of all nodes, and the names of the first ten that are not well."""

from __future__ import annotations

from datetime import UTC, datetime

from installer.controller.nodes import State, Verdict
from installer.controller.status import Fleet, patch, status

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RESOURCE = {"metadata": {"name": "mesh", "namespace": "mesh", "generation": 7}}


def fleet(*states: State) -> Fleet:
    named = [Verdict(f"node-{number:02}", state, "Reason", "message") for number, state in enumerate(states)]
    return Fleet(installed=True, verdicts=named, version="1")


def test_ten_nodes_that_are_not_well_are_named_and_all_are_counted() -> None:
    made = status(RESOURCE, fleet(State.READY, *[State.FAILED] * 8, *[State.SILENT] * 4), (), NOW, {})
    assert [each["node"] for each in made["notWell"]] == [f"node-{number:02}" for number in range(1, 11)]
    assert made["nodes"] == {"total": 13, "ready": 1, "updating": 0, "failed": 8, "silent": 4}
    assert made["status"]["cni"]["error"] == "node node-01: Reason: message (and 11 more, see notWell)"


def test_a_node_that_is_mended_is_reconciling_and_one_on_its_way_is_updating() -> None:
    mended = status(RESOURCE, fleet(State.READY, State.MENDING), (), NOW, {})
    assert mended["status"]["cni"]["status"] == "RECONCILING"
    assert status(RESOURCE, fleet(State.MENDING, State.UPDATING), (), NOW, {})["status"]["cni"]["status"] == "UPDATING"


def test_nothing_is_written_where_nothing_has_changed() -> None:
    first = status(RESOURCE, fleet(State.READY), (), NOW, {})
    assert patch(status(RESOURCE, fleet(State.READY), (), datetime(2026, 1, 2, tzinfo=UTC), first), first) == {}
