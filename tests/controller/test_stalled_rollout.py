"""Which agents are replaced while Kubernetes' roll-out stands still, by what is seen of the nodes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from installer.controller.plan import World
from installer.controller.stalled_rollout import PATIENCE, find_next
from installer.fleet.rollouts import SKEW
from tests.controller.samples import LONG_AGO, NOW, TEMPLATE, daemonset, pod, report

if TYPE_CHECKING:
    from installer.fleet.objects import AgentPod, Report

pytestmark = pytest.mark.pure

SECOND = timedelta(seconds=1)
READY = pod(template=TEMPLATE, created=NOW)
OLD = pod(template="6")
STUCK = pod(template=TEMPLATE, ready=False, created=LONG_AGO + SKEW + SECOND)  # its report is of LONG_AGO
BROKEN = pod(template=TEMPLATE, ready=False, created=LONG_AGO - SECOND)
BEHIND = pod(
    template=TEMPLATE, ready=False, created=LONG_AGO + 5 * SECOND
)  # as BROKEN, on a node whose clock is behind
STARTING = pod(template=TEMPLATE, ready=False, created=NOW)
ENDING = pod(template="6", terminating=True, ends=NOW)
OFF = pod(template="6", terminating=True, ends=NOW - PATIENCE - SECOND)


def found(most: int | str, *pods: AgentPod | None, **changed: Any) -> tuple[list[str], bool]:
    """Decide about nodes n0, n1, … with these agents: the nodes whose agents are deleted, and whether it waits all the same."""
    there = {f"n{number}": replace(each, node=f"n{number}") for number, each in enumerate(pods) if each}
    reports: dict[str, Report] = {
        name: report(name, ready=each.ready or each.created == NOW) for name, each in there.items()
    }
    of = daemonset()
    of["spec"]["updateStrategy"] = {"rollingUpdate": {"maxUnavailable": most}}
    updated = sum(each.template == TEMPLATE for each in there.values())
    unavailable = len(pods) - sum(each.ready and not each.terminating for each in there.values())
    of["status"] = {
        "desiredNumberScheduled": len(pods),
        "updatedNumberScheduled": updated,
        "numberUnavailable": unavailable,
    }
    world = World(resources=[], daemonset=of, nodes={}, reports=reports, pods=there)
    following_ones = find_next(replace(world, **changed), [f"n{number}" for number in range(len(pods))], NOW)
    return [each.node for each in following_ones.agents], following_ones.waits


@pytest.mark.parametrize(
    ("most", "pods", "expected"),
    [
        (1, (STUCK, OLD, OLD), (["n1"], False)),
        (2, (STUCK, STUCK, OLD, OLD), (["n2"], False)),  # one, until it is ready
        (2, (STUCK, STUCK, STARTING, OLD), ([], False)),
        (2, (STUCK, STUCK, READY, OLD, OLD, OLD), (["n3", "n4"], False)),
        (2, (STUCK, STUCK, READY, STARTING, OLD, OLD), (["n4"], False)),
        (2, (STUCK, STUCK, READY, None, OLD, OLD), (["n4"], False)),
        (2, (STUCK, STUCK, READY, ENDING, OLD, OLD), (["n4"], False)),
        ("25%", (STUCK, READY, OLD, OLD), (["n2"], False)),
        (1, (OFF, OLD, OLD), (["n1"], False)),
        (1, (ENDING, OLD, OLD), ([], True)),  # Kubernetes' own work
        (1, (BROKEN, OLD, OLD), ([], True)),
        (1, (BEHIND, OLD, OLD), ([], True)),
        (1, (STUCK, BROKEN, OLD), ([], True)),
        (2, (STUCK, STUCK, BROKEN, READY, OLD), (["n4"], True)),
        (1, (STUCK, READY, READY), ([], False)),
        (3, (STUCK, OLD, OLD), ([], False)),  # Kubernetes goes on itself
    ],
)
def test_nodes_unready_before_the_rollout_are_passed(
    most: int | str, pods: tuple[AgentPod | None, ...], expected: tuple[list[str], bool]
) -> None:
    assert found(most, *pods) == expected


def test_a_node_without_a_report_is_not_passed() -> None:
    assert found(1, STUCK, OLD, reports={}) == ([], True)


def test_no_agent_is_replaced_without_a_running_daemonset() -> None:
    assert found(1, STUCK, OLD, daemonset=None) == ([], False)
    parked = daemonset()
    parked["spec"]["template"]["spec"]["nodeSelector"] = {"cni.istio.io/parked": "true"}
    assert found(1, STUCK, OLD, daemonset=parked) == ([], False)


def test_no_agent_is_replaced_with_update_strategy_on_delete() -> None:
    by_hand = daemonset()
    by_hand["spec"]["updateStrategy"] = {"type": "OnDelete"}
    by_hand["status"] = {"desiredNumberScheduled": 2, "updatedNumberScheduled": 1, "numberUnavailable": 1}
    assert found(1, STUCK, OLD) == (["n1"], False)
    assert found(1, STUCK, OLD, daemonset=by_hand) == ([], False)
