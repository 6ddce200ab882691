"""How a deleted resource leaves, step by step."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from installer.controller.finalizer import Move, Step, decide_step, decide_uninstall, find_unanswered
from installer.controller.plan import World, make_plan
from installer.controller.pod_template import build_wish
from installer.fleet.objects import by_node
from installer.fleet.reasons import REMOVED
from installer.kube import times
from tests.controller.samples import NODE, NOW, daemonset, node, pod, report, resource

pytestmark = pytest.mark.pure

DEADLINE = timedelta(seconds=300)
BARELY = NOW + DEADLINE - timedelta(microseconds=1)
LATE = NOW + DEADLINE
LEFT, PODS = ("node1", "node2"), ("pod on node1",)
WAIT, PARK, RELEASE = Move


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({"unanswered": LEFT, "pods": PODS}, Step(WAIT, LEFT)),
        ({"unanswered": LEFT, "pods": PODS, "now": BARELY}, Step(WAIT, LEFT)),
        ({"unanswered": LEFT, "pods": PODS, "now": LATE}, Step(PARK, LEFT, overdue=True)),
        ({"pods": PODS}, Step(PARK)),
        ({"pods": PODS, "now": LATE}, Step(PARK)),
        ({"parked": True, "pods": PODS}, Step(WAIT, PODS)),
        ({"parked": True, "pods": PODS, "now": BARELY}, Step(WAIT, PODS)),
        ({"parked": True, "pods": PODS, "now": LATE}, Step(RELEASE, PODS, overdue=True)),
        ({"parked": True}, Step(RELEASE)),
        ({"parked": True, "now": LATE}, Step(RELEASE)),
        ({"parked": True, "unanswered": LEFT}, Step(RELEASE, LEFT, overdue=True)),
        ({"parked": True, "unanswered": LEFT, "pods": PODS, "now": LATE}, Step(RELEASE, PODS, overdue=True)),
        ({"succeeded": True, "unanswered": LEFT, "pods": PODS}, Step(RELEASE)),
        ({"succeeded": True, "unanswered": LEFT, "pods": PODS, "now": LATE}, Step(RELEASE)),
    ],
)
def test_next_step_of_the_uninstall(seen: dict[str, Any], expected: Step) -> None:
    quiet: dict[str, Any] = {"now": NOW, "succeeded": False, "unanswered": (), "parked": False, "pods": ()}
    assert decide_step(**quiet | {"deleted": NOW, "deadline": DEADLINE} | seen) == expected


def test_nodes_not_reported_as_removed_count_as_remaining() -> None:
    reports = {
        "installed": report(),
        "not": report(state="NotInstalled"),
        "mute": report(state=""),
        "removed": report(state=REMOVED),
        "gone": report(),
    }
    pods = {name: pod() for name in ("started", "removed", "installed", "went")}
    pods["stuck"] = pod(started=False)
    nodes = {"empty", "stuck", "started", "removed", "mute", "not", "installed"}
    assert find_unanswered(nodes, reports, pods) == ("installed", "mute", "not", "started")


def test_a_replacement_that_has_not_started_does_not_hide_the_agent_before_it() -> None:
    before = pod("before", terminating=True)
    after = pod("after", ready=False, started=False, created=NOW)
    assert find_unanswered({NODE}, {}, by_node([before, after])) == (NODE,)
    assert by_node([after, before])[NODE].name == "after"
    assert find_unanswered({NODE}, {}, by_node([after, pod("other", node="node2")])) == ()


@pytest.mark.parametrize(("after", "told"), [(timedelta(0), False), (DEADLINE, True)])
def test_a_node_whose_agent_ended_without_a_report_is_still_excepted(after: timedelta, *, told: bool) -> None:
    """Its pod was all that was known of it: once that is gone, too, only the time tells that nodes were passed."""
    going, ended = resource(terminating=True), daemonset(build_wish(daemonset(), None, parked=True))
    world = World([going], ended, {NODE: node()}, {}, {})
    deleted = times.parse_rfc3339(going["metadata"]["deletionTimestamp"])
    assert deleted
    done = decide_uninstall(
        going, world, make_plan(world, "mesh"), deadline=DEADLINE, refused=False, now=deleted + after
    )
    assert done.release
    (event,) = done.events
    assert ("except" in event.message) is told
