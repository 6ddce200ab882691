"""Controller and `install-cni status` say the same of a node, whatever is observed: its state, and the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from installer.controller import plan
from installer.fleet import objects
from tests.status.objects import (
    NAMES,
    NAMESPACE,
    NOW,
    ago,
    answers,
    daemonset,
    instead,
    never_reported,
    node,
    plane,
    pod,
    report,
    summarize,
)

if TYPE_CHECKING:
    from installer.status.model import Answers

pytestmark = pytest.mark.pure

NODES, PODS, REPORTS = ([make(each) for each in NAMES] for make in (node, pod, report))
SAYS_NO: dict[str, Any] = {"ready": "False", "reason": "NotInstalled", "message": "no network configuration"}
REMOVED: dict[str, Any] = {"state": "Removed", "ready": "False", "reason": "Removed"}
JUST_NOW = ago(seconds=5)
BLOCKED = {"key": "dedicated", "value": "gpu", "effect": "NoSchedule"}

A_POD = {
    "ready": pod("node-2"),
    "ready since a moment": pod("node-2", changed=JUST_NOW),
    "of an old template": pod("node-2", generation="2"),
    "terminating": pod("node-2", "Terminating", deletionTimestamp=JUST_NOW),
    "terminating and unready": pod("node-2", "Terminating", "0/1", deletionTimestamp=JUST_NOW),
    "unready": pod("node-2", "Running", "0/1"),
    "unready since a moment": pod("node-2", "Running", "0/1", changed=JUST_NOW),
    "new and unready": pod("node-2", "Running", "0/1", creationTimestamp=JUST_NOW),
    "created": pod("node-2", "ContainerCreating", "0/1", creationTimestamp=JUST_NOW),
    "stuck": pod("node-2", "ContainerCreating", "0/1"),
    "without image": pod("node-2", "ImagePullBackOff", "0/1"),
    "crashing": pod("node-2", "CrashLoopBackOff", "0/1", creationTimestamp=JUST_NOW),
    "missing": None,
}
A_REPORT = {
    "well": report("node-2"),
    "of old settings": report("node-2", settings=("istio", 1)),
    "of the chart's settings": report("node-2", settings=None),
    "saying no": report("node-2", **SAYS_NO),
    "saying no, with old settings": report("node-2", settings=("istio", 1), **SAYS_NO),
    "saying nothing": report("node-2", ready="Unknown", reason="Starting", message="soon"),
    "not installed": report("node-2", state="NotInstalled"),
    "removed": report("node-2", **REMOVED),
    "of the controller": never_reported("node-2", "FailedMount", "cniBinDir /x is not on this node"),
    "of the controller, that no agent runs": never_reported("node-2", "NoAgent", "no agent runs on this node"),
    "missing": None,
}
OF_THE_NODE = {"up": node("node-2"), "down": node("node-2", "NotReady"), "new": node("node-2", created=JUST_NOW)}
PARKED = daemonset(0, selector={"kubernetes.io/os": "linux", "cni.istio.io/parked": "true"})
CLUSTER: dict[str, dict[str, Any]] = {
    "installed": {},
    "disabled": {"planes": [plane(enabled=False)]},
    "deleted": {"planes": [plane(deletionTimestamp=ago(hours=1))]},
    "invalid": {"planes": [plane(cni={"logLevel": 7})]},
    "without a control plane": {"planes": []},
    "uninstalled": {"planes": [], "daemonsets": [PARKED]},
}


def of_status(found: Answers) -> tuple[str, str] | None:
    return next(((each.state.value, each.reason) for each in summarize(found).nodes if each.name == "node-2"), None)


def of_controller(found: Answers) -> tuple[str, str] | None:
    """Ask the controller, which has seen the node unhealthy for as long as the objects have been as they are."""
    reports = {each["metadata"]["name"]: objects.read_report(each) for each in found.reports}  # type: ignore[union-attr]
    world = plan.World(
        resources=found.planes,  # type: ignore[arg-type]
        daemonset=found.daemonsets[0],  # type: ignore[index]
        nodes={each["metadata"]["name"]: objects.read_node(each) for each in found.nodes},  # type: ignore[union-attr]
        reports={name: each for name, each in reports.items() if each.state},
        pods={each.node: each for each in map(objects.read_agent_pod, found.pods)},  # type: ignore[arg-type]
        unreported={name: each for name, each in reports.items() if not each.state},
    )
    made = plan.make_plan(world, NAMESPACE)
    now = NOW
    pod_of, node_of = world.pods.get("node-2"), world.nodes["node-2"]
    times = [(pod_of.changed or pod_of.created) if pod_of else node_of.created]
    if made.active and not made.installed:
        times.append(objects.spec_changed(made.active) or now)
    seen_since = {"node-2": min(max(times), now)}
    verdicts = plan.judge_fleet(world, made, seen_since, now).verdicts
    return next(((each.state.value, each.reason) for each in verdicts if each.node == "node-2"), None)


@pytest.mark.parametrize("cluster", CLUSTER)
@pytest.mark.parametrize("of_the_node", OF_THE_NODE)
@pytest.mark.parametrize("its_report", A_REPORT)
def test_controller_and_status_agree(its_report: str, of_the_node: str, cluster: str) -> None:
    differ = {}
    for its_pod, made in A_POD.items():
        others_reports = [each for each in REPORTS if each["metadata"]["name"] != "node-2"]
        others_pods = [each for each in PODS if each["spec"]["nodeName"] != "node-2"]
        found = answers(
            **{"nodes": instead(NODES, OF_THE_NODE[of_the_node])}
            | {"reports": [*others_reports, *filter(None, [A_REPORT[its_report]])]}
            | {"pods": [*others_pods, *filter(None, [made])], "daemonsets": [daemonset()]}
            | CLUSTER[cluster]
        )
        status, controller = of_status(found), of_controller(found)
        if status != controller:
            differ[its_pod] = {"status": status, "controller": controller}
    assert not differ


@pytest.mark.parametrize(
    ("cluster", "of_the_node", "expected"),
    [
        ("disabled", "up", ("Removing", "NoAgent")),
        ("disabled", "down", ("Removing", "NodeNotReady")),
        ("deleted", "up", ("Unknown", "NoAgent")),
        ("deleted", "new", ("Removing", "NoAgent")),
        ("deleted", "down", ("Unknown", "NodeNotReady")),
        ("uninstalled", "up", None),
        ("uninstalled", "new", None),
        ("uninstalled", "down", None),
    ],
)
def test_nobody_says_that_something_was_removed_from_a_node_of_which_nothing_is_known(
    cluster: str, of_the_node: str, expected: tuple[str, str] | None
) -> None:
    """An agent is expected there, unless the plugin is uninstalled: then it may never have been there."""
    found = answers(
        **{"nodes": instead(NODES, OF_THE_NODE[of_the_node]), "reports": REPORTS[:1], "pods": PODS[:1]}
        | CLUSTER[cluster]
    )
    assert (of_status(found), of_controller(found)) == (expected, expected)


def test_neither_judges_a_node_whose_taint_keeps_agents_away() -> None:
    """Unless something of ours is there, or was."""
    tainted = instead(NODES, node("node-2", taints=[BLOCKED]))
    without = answers(nodes=tainted, reports=[REPORTS[0], REPORTS[2]], pods=[PODS[0], PODS[2]])
    assert (of_status(without), of_controller(without)) == (None, None)
    assert of_status(answers(nodes=tainted)) == of_controller(answers(nodes=tainted)) == ("Ready", ""), (
        "NoSchedule keeps it"
    )
