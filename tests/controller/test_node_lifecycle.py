"""What the controller says in place of agents that do not run, and when it says nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from installer.controller.node_lifecycle import condition_patches
from installer.controller.plan import World
from installer.fleet.node_health import NodeHealth, State
from installer.fleet.objects import AgentPod, Node, Report

pytestmark = pytest.mark.pure

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
LONG_AGO = NOW - timedelta(hours=1)
NODE = Node("node1", "its-uid", LONG_AGO, "7", {}, ())
POD = AgentPod("agent-1", "uid", "node1", LONG_AGO, False, False, "1", "FailedMount", "", started=False)
RUNNING = replace(POD, reason="NotReady", started=True)
REPORT = Report("node1", "Installed", "0.1.0", True, "Redirecting", "well", LONG_AGO, None, LONG_AGO, "12")
FAILED = NodeHealth("node1", State.FAILED, "FailedMount", "set cniBinDir")
SAID = replace(REPORT, state="", ready=False, reason="FailedMount", message="set cniBinDir", since=LONG_AGO)


def said(
    verdict: NodeHealth | None = FAILED, pod: AgentPod | None = POD, report: Report | None = REPORT
) -> list[tuple[str, dict[str, Any]]]:
    """Return version and condition of what is to be written."""
    reports = {"node1": report} if report and report.state else {}
    unreported = {"node1": report} if report and not report.state else {}
    world = World([], None, {"node1": NODE}, reports, {"node1": pod} if pod else {}, unreported=unreported)
    return [(each.version, each.condition) for each in condition_patches(world, [verdict] if verdict else [], NOW)]


CONDITION = {"type": "Ready", "status": "False", "reason": "FailedMount", "message": "set cniBinDir"}
JUST_NOW, THEN = "2026-05-01T12:00:00Z", "2026-05-01T11:00:00Z"


def test_agent_that_does_not_start_gets_a_condition() -> None:
    assert said() == [("12", CONDITION | {"lastTransitionTime": JUST_NOW})]
    assert said(report=None) == [("", CONDITION | {"lastTransitionTime": JUST_NOW})]


@pytest.mark.parametrize("state", [State.FAILED, State.UNKNOWN])
def test_missing_agent_gets_a_condition(state: State) -> None:
    verdict = NodeHealth("node1", state, "NoAgent", "is the node up?")
    assert [each["reason"] for _, each in said(verdict, pod=None)] == ["NoAgent"]


@pytest.mark.parametrize("state", [State.UPDATING, State.REPAIRING, State.READY])
def test_no_condition_during_patience_or_on_a_healthy_node(state: State) -> None:
    assert said(replace_state(state)) == []


def replace_state(state: State) -> NodeHealth:
    return FAILED._replace(state=state)


def test_running_agent_reports_its_own_condition() -> None:
    assert said(pod=RUNNING) == []
    assert said(pod=replace(POD, ready=True)) == []


@pytest.mark.parametrize(("seconds", "count"), [(0, 0), (9, 0), (10, 1)])
def test_recent_report_is_not_replaced(seconds: int, count: int) -> None:
    assert len(said(report=replace(REPORT, written=NOW - timedelta(seconds=seconds)))) == count


def test_unchanged_condition_is_written_once_and_keeps_its_time() -> None:
    assert said(report=SAID) == []
    assert said(report=replace(SAID, message="another")) == [("12", CONDITION | {"lastTransitionTime": THEN})]


@pytest.mark.parametrize(
    ("before", "now", "after"),
    [
        ("ErrImagePull", "ImagePullBackOff", 600),
        ("Error", "CrashLoopBackOff", 600),
        ("FailedMount", "FailedMount", 600),
        ("FailedMount", "ImagePullBackOff", 10),
    ],
)
def test_alternating_kubelet_reasons_are_written_rarely(before: str, now: str, after: int) -> None:
    for seconds, count in ((after - 1, 0), (after, 1)):
        told = replace(SAID, reason=before, message="before", written=NOW - timedelta(seconds=seconds))
        assert len(said(FAILED._replace(reason=now), report=told)) == count


def test_patch_says_whether_it_contradicts_the_agents_report() -> None:
    for report, expected in ((REPORT, True), (replace(REPORT, ready=False), False), (SAID, None), (None, False)):
        world = World([], None, {"node1": NODE}, {"node1": report} if report else {}, {"node1": POD})
        assert [each.contradicts for each in condition_patches(world, [FAILED], NOW)] == (
            [] if expected is None else [expected]
        )


def test_failed_condition_becomes_no_agent_when_none_is_desired() -> None:
    for verdict in (None, replace_state(State.READY)):
        assert [(each["reason"], each["status"]) for _, each in said(verdict, None, SAID)] == [("NoAgent", "False")]
    assert said(None, None, REPORT) == [], "that an agent has said something stays"
    assert said(replace_state(State.UPDATING), None, SAID) == []


def test_deleted_node_gets_no_condition() -> None:
    world = World([], None, {}, {}, {}, unreported={"node1": SAID})
    assert [*condition_patches(world, [FAILED], NOW)] == []


@pytest.mark.parametrize("reason", ["", "no word", "Ünicode", "-"])
def test_reason_that_the_definition_rejects_is_replaced(reason: str) -> None:
    assert [each["reason"] for _, each in said(FAILED._replace(reason=reason))] == ["NotReady"]


def test_message_is_truncated_to_the_definitions_limit() -> None:
    ((_, condition),) = said(FAILED._replace(message="x" * 40000))
    assert len(condition["message"]) == 32768
