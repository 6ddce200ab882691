"""The status of a resource: counts of all nodes, and the names of the first ten that are not well."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from installer.controller.status import Fault, Fleet, build_patch, build_status
from installer.fleet.node_health import NodeHealth, State

pytestmark = pytest.mark.pure

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RESOURCE = {"metadata": {"name": "mesh", "namespace": "mesh", "generation": 7}}


def fleet(*states: State) -> Fleet:
    named = [NodeHealth(f"node-{number:02}", state, "Reason", "message") for number, state in enumerate(states)]
    return Fleet(installed=True, verdicts=named, version="1")


def test_ten_unhealthy_nodes_are_named_and_all_are_counted() -> None:
    made = build_status(RESOURCE, fleet(State.READY, *[State.FAILED] * 8, *[State.UNKNOWN] * 4), (), NOW, {})
    assert [each["node"] for each in made["unhealthyNodes"]] == [f"node-{number:02}" for number in range(1, 11)]
    assert made["nodes"] == {"total": 13, "ready": 1, "updating": 0, "failed": 8, "unknown": 4}
    assert made["status"]["cni"]["error"] == "node node-01: Reason: message (and 11 more, see unhealthyNodes)"


def test_a_repairing_node_is_reconciling_and_a_replaced_one_updating() -> None:
    mended = build_status(RESOURCE, fleet(State.READY, State.REPAIRING), (), NOW, {})
    assert mended["status"]["cni"]["status"] == "RECONCILING"
    assert (
        build_status(RESOURCE, fleet(State.REPAIRING, State.UPDATING), (), NOW, {})["status"]["cni"]["status"]
        == "UPDATING"
    )


def test_unchanged_status_makes_an_empty_patch() -> None:
    first = build_status(RESOURCE, fleet(State.READY), (), NOW, {})
    assert (
        build_patch(build_status(RESOURCE, fleet(State.READY), (), datetime(2026, 1, 2, tzinfo=UTC), first), first)
        == {}
    )


NOTES = ("spec.unvalidatedValues.cni.logLevle has no effect: no such value; is logLevel meant?",)


def reconciled(made: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in made["conditions"] if each["type"] == "Reconciled")
    return found


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("state", State)
def test_notes_are_added_and_change_nothing_else(installed: bool, state: State) -> None:
    of = Fleet(installed, fleet(state).verdicts, "1", "it is off")
    made, plain = build_status(RESOURCE, of, (), NOW, {}, notes=NOTES), build_status(RESOURCE, of, (), NOW, {})
    sentence, plain_sentence = [each["status"]["cni"].pop("statusString") for each in (made, plain)]
    assert sentence == f"{plain_sentence}; {NOTES[0]}"
    assert reconciled(made).pop("message") == f"{reconciled(plain).pop('message')}; {NOTES[0]}"
    assert made == plain


def test_status_of_a_resource_that_is_not_applied_has_only_its_faults() -> None:
    faults = (Fault("DaemonSetNotFound", "there is none"),)
    assert build_status(RESOURCE, None, faults, NOW, {}, notes=NOTES) == build_status(RESOURCE, None, faults, NOW, {})
