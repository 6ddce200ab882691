"""What is said of a cluster, by its objects: tables of one thing that is not as it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from installer.fleet.node_health import State
from installer.status.model import Answers, Cause, Health, Severity, Unavailable
from tests.status.objects import (
    NAMES,
    ago,
    answers,
    controller,
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
    from installer.status.model import ClusterStatus, NodeStatus

pytestmark = pytest.mark.pure

REPORTS = [report(each) for each in NAMES]
PODS = [pod(each) for each in NAMES]
NODES = [node(each) for each in NAMES]


def the_unhealthy_node(found: ClusterStatus) -> NodeStatus:
    (only,) = found.unhealthy
    return only


def wrong(found: ClusterStatus) -> list[str]:
    return [each.message for each in found.findings if each.severity is Severity.ERROR]


def test_a_cluster_without_problems_is_healthy() -> None:
    found = summarize(answers())
    assert found.health is Health.HEALTHY
    assert found.summary == "Healthy: 3 nodes redirect pods by the settings of istio-system/istio."
    assert not found.findings
    assert not found.progress
    assert [each.name for each in found.healthy] == [*NAMES]
    assert (found.nodes[0].version, found.nodes[0].backend, found.nodes[0].file, found.nodes[0].redirected) == (
        "0.1.0",
        "nft",
        "10-calico.conflist",
        12,
    )


def test_without_a_resource_the_charts_settings_are_healthy() -> None:
    found = summarize(answers(planes=[], controllers=[], reports=[report(each, settings=None) for each in NAMES]))
    assert found.health is Health.HEALTHY
    assert found.summary == "Healthy: 3 nodes redirect pods by the chart's settings."


OTHERWISE: list[tuple[str, dict[str, Any], State, str, str]] = [
    (
        "the agent says why",
        {"reports": instead(REPORTS, report("node-2", ready="False", reason="NoConflist", message="install one"))},
        State.FAILED,
        "NoConflist",
        "install one",
    ),
    (
        "the agent does not know",
        {"reports": instead(REPORTS, report("node-2", ready="Unknown", reason="Starting", message="soon"))},
        State.FAILED,
        "Starting",
        "soon",
    ),
    (
        "no report",
        {"reports": [report("node-1"), report("node-3")]},
        State.UNKNOWN,
        "NoReport",
        "logs istio-cni-node-node-2",
    ),
    ("no pod", {"pods": [pod("node-1"), pod("node-3")]}, State.UNKNOWN, "NoAgent", "describe daemonset istio-cni-node"),
    (
        "no image",
        {"pods": instead(PODS, pod("node-2", "ImagePullBackOff", "0/1"))},
        State.FAILED,
        "ImagePullBackOff",
        "check hub, tag and pullPolicy",
    ),
    (
        "the agent ends",
        {"pods": instead(PODS, pod("node-2", "CrashLoopBackOff", "0/1"))},
        State.FAILED,
        "CrashLoopBackOff",
        "logs --previous istio-cni-node-node-2",
    ),
    (
        "not started",
        {"pods": instead(PODS, pod("node-2", "ContainerCreating", "0/1", changed=ago(seconds=20)))},
        State.REPAIRING,
        "ContainerCreating",
        "describe pod istio-cni-node-node-2",
    ),
    (
        "not started, and the controller says why",
        {
            "pods": instead(PODS, pod("node-2", "ContainerCreating", "0/1")),
            "reports": instead(REPORTS, never_reported("node-2", "FailedMount", "cniBinDir /x is not on this node")),
        },
        State.FAILED,
        "FailedMount",
        "cniBinDir /x is not on this node",
    ),
    (
        "started, and only the controller has said something",
        {"reports": instead(REPORTS, never_reported("node-2", "FailedMount", "cniBinDir /x is not on this node"))},
        State.UNKNOWN,
        "NoReport",
        "logs istio-cni-node-node-2",
    ),
    (
        "to be installed again",
        {
            "pods": instead(PODS, pod("node-2", "ContainerCreating", "0/1", changed=ago(seconds=20))),
            "reports": instead(REPORTS, report("node-2", state="Removed", ready="False", reason="Removed")),
        },
        State.UPDATING,
        "ContainerCreating",
        "describe pod istio-cni-node-node-2",
    ),
    (
        "starting",
        {"pods": instead(PODS, pod("node-2", "Running", "0/1", changed=ago(seconds=20)))},
        State.REPAIRING,
        "NotReady",
        "not ready yet",
    ),
    (
        "not ready, and says why",
        {
            "pods": instead(PODS, pod("node-2", "Running", "0/1")),
            "reports": instead(REPORTS, report("node-2", ready="False", reason="NotLoaded", message="wrong dir")),
        },
        State.FAILED,
        "NotLoaded",
        "wrong dir",
    ),
    (
        "ending",
        {"pods": instead(PODS, pod("node-2", "Terminating", deletionTimestamp=ago(seconds=3)))},
        State.UPDATING,
        "WaitingForUpdate",
        "rolling update",
    ),
    (
        "an old pod",
        {"pods": instead(PODS, pod("node-2", generation="2"))},
        State.UPDATING,
        "WaitingForUpdate",
        "rolling update",
    ),
    (
        "old settings",
        {"reports": instead(REPORTS, report("node-2", settings=("istio", 1)))},
        State.UPDATING,
        "OutdatedSettings",
        "has not applied the current settings",
    ),
    (
        "the settings of another",
        {"reports": instead(REPORTS, report("node-2", settings=("former", 2)))},
        State.UPDATING,
        "OutdatedSettings",
        "has not applied the current settings",
    ),
    (
        "the chart's settings",
        {"reports": instead(REPORTS, report("node-2", settings=None))},
        State.UPDATING,
        "OutdatedSettings",
        "has not applied the current settings",
    ),
    (
        "removed before",
        {"reports": instead(REPORTS, report("node-2", state="Removed", ready="False", reason="Removed"))},
        State.UPDATING,
        "Removed",
        "installed the plugin again",
    ),
    (
        "a silent kubelet",
        {"nodes": instead(NODES, node("node-2", "NotReady,SchedulingDisabled"))},
        State.UNKNOWN,
        "NodeNotReady",
        "describe node node-2",
    ),
]


@pytest.mark.parametrize(
    ("changed", "state", "reason", "said"), [each[1:] for each in OTHERWISE], ids=[e[0] for e in OTHERWISE]
)
def test_an_unhealthy_node_is_named_with_reason_and_remedy(
    changed: dict[str, Any], state: State, reason: str, said: str
) -> None:
    found = summarize(answers(**changed))
    assert found.health is (Health.DEGRADED if state.is_lost else Health.PROGRESSING)
    it = the_unhealthy_node(found)
    assert (it.name, it.state, it.reason) == ("node-2", state, reason)
    assert said in f"{it.message} {it.remedy}"
    assert found.nodes[0] is it
    assert (found.progress is not None) == (state is State.UPDATING)


def test_a_cordoned_node_is_healthy() -> None:
    assert summarize(answers(nodes=instead(NODES, node("node-2", "Ready,SchedulingDisabled")))).health is Health.HEALTHY


def test_a_node_that_is_not_selected_is_not_counted() -> None:
    found = summarize(answers(nodes=[*NODES, node("windows-1", system="windows")]))
    assert [each.name for each in found.nodes] == [*NAMES]


def test_a_replacement_pod_counts_before_the_old_one_is_gone() -> None:
    ending = pod("node-2", "Terminating", deletionTimestamp=ago(seconds=3))
    assert summarize(answers(pods=[*PODS, ending])).health is Health.HEALTHY


def test_nodes_are_named_failed_before_unknown_before_updating_before_ready() -> None:
    found = summarize(
        answers(
            reports=[report("node-3", ready="False"), report("node-1", settings=("istio", 1))],
            pods=PODS,
        )
    )
    assert [(each.name, each.state) for each in found.nodes] == [
        ("node-3", State.FAILED),
        ("node-2", State.UNKNOWN),
        ("node-1", State.UPDATING),
    ]
    assert found.summary == "Degraded: 3 of 3 nodes (1 Failed, 1 Unknown, 1 Updating)."


def test_a_change_shows_its_progress() -> None:
    found = summarize(
        answers(planes=[plane(generation=3)], reports=instead(REPORTS, report("node-1", settings=("istio", 3))))
    )
    assert found.progress
    assert (found.progress.kind, found.progress.done, found.progress.total) == ("Rollout", 1, 3)
    assert found.summary == "Updating: 1 of 3 nodes is done."


@pytest.mark.parametrize(
    "changed",
    [
        {"planes": [plane(observed=1)]},
        {"daemonsets": [daemonset(generation=4)]},
        {"daemonsets": [daemonset(updated=2)]},
    ],
    ids=["the controller has not seen it", "nor the DaemonSet's", "a pod is old"],
)
def test_change_that_has_not_reached_everything_is_progressing(changed: dict[str, Any]) -> None:
    found = summarize(answers(**changed))
    assert found.health is Health.PROGRESSING
    assert found.progress
    assert found.progress.kind == "Rollout"


@pytest.mark.parametrize(
    "first", [plane(enabled=False), plane(deletionTimestamp=ago(seconds=20))], ids=["disabled", "deleted"]
)
def test_an_uninstall_shows_its_progress_and_ends_removed(first: Any) -> None:
    removed = [report(each, state="Removed", ready="False", reason="Removed") for each in NAMES]
    found = summarize(answers(planes=[first], reports=[*REPORTS[:2], removed[2]]))
    assert found.progress
    assert (found.progress.kind, found.progress.done, found.progress.total) == ("Uninstall", 1, 3)
    assert {each.state for each in found.unhealthy} == {State.REMOVING}
    ended = summarize(answers(planes=[first], reports=removed))
    assert (ended.health, ended.progress) == (Health.HEALTHY, None)
    assert ended.summary == "Removed: the plugin is removed from all nodes, as istio-system/istio asks."


def test_silent_or_failed_agents_are_not_done_in_an_uninstall() -> None:
    reports = [
        report("node-1", state="NotInstalled", ready="False", reason="NotInstalled"),
        report("node-2", state="Removed"),
    ]
    found = summarize(answers(planes=[plane(enabled=False)], reports=reports))
    assert [(each.name, each.state, each.reason) for each in found.nodes] == [
        ("node-1", State.REMOVING, "NotInstalled"),
        ("node-3", State.REMOVING, "NoReport"),
        ("node-2", State.REMOVED, ""),
    ]


def test_a_deleted_daemonset_counts_as_an_uninstall() -> None:
    reports = [report("node-1", state="Removed"), *REPORTS[1:]]
    found = summarize(answers(planes=[], daemonsets=[daemonset(deletionTimestamp=ago(seconds=5))], reports=reports))
    assert found.progress
    assert (found.progress.kind, found.progress.done) == ("Uninstall", 1)


def test_node_with_the_plugin_and_no_agent_is_named() -> None:
    removed = [report(each, state="Removed") for each in NAMES[1:]]
    parked = daemonset(0, selector={"cni.istio.io/parked": "true"})
    found = summarize(answers(planes=[], reports=[report("node-1"), *removed], daemonsets=[parked], pods=[]))
    it = the_unhealthy_node(found)
    assert (it.name, it.state, it.reason) == ("node-1", State.UNKNOWN, "NoAgent")
    assert "install-cni uninstall" in it.remedy
    ended = summarize(
        answers(planes=[], reports=[report(each, state="Removed") for each in NAMES], daemonsets=[parked], pods=[])
    )
    assert ended.summary == "Removed: the plugin is removed from all nodes; no IstioControlPlane asks for it."
    assert ended.health is Health.HEALTHY


def test_a_cluster_without_agents_is_not_installed_and_says_how() -> None:
    found = summarize(Answers(nodes=NODES))
    assert found.health is Health.DEGRADED
    assert found.summary == "Not installed: the cluster has no node agents."
    (only,) = found.findings
    assert "helm install" in only.remedy
    assert not found.nodes


@pytest.mark.parametrize("state", ["Installed", "NotInstalled"])
def test_leftovers_of_a_forced_uninstall_are_named(state: str) -> None:
    """An agent that ended before it reported its installation may have left one."""
    found = summarize(Answers(nodes=NODES, reports=[report("node-1", state=state), report("node-2", state="Removed")]))
    it = the_unhealthy_node(found)
    assert it.name == "node-1"
    assert "kubectl debug node/node-1" in it.remedy


def test_the_younger_resource_is_reported_with_what_differs() -> None:
    young = plane("young", created=ago(hours=1), cni={"logLevel": "debug", "hub": "other.example"})
    found = summarize(answers(planes=[young, plane()]))
    assert [(each.name, each.active) for each in found.planes] == [("istio", True), ("young", False)]
    assert found.planes[1].conflicts == ("hub", "logLevel")
    assert wrong(found) == [
        "istio-system/young is ignored, as istio-system/istio is older; they differ in hub and logLevel"
    ]


def test_younger_resource_with_enabled_false_conflicts() -> None:
    found = summarize(answers(planes=[plane(), plane("young", created=ago(hours=1), enabled=False)]))
    assert found.planes[1].conflicts == ("enabled",)
    assert not found.progress


def test_a_problem_of_a_resource_is_named_once() -> None:
    found = summarize(answers(planes=[plane(cni={"logLevel": 7})]))
    assert len(wrong(found)) == 1


def test_younger_resource_with_equal_values_is_a_note() -> None:
    found = summarize(answers(planes=[plane(), plane("young", created=ago(hours=1))]))
    assert found.health is Health.HEALTHY
    assert [each.severity for each in found.findings] == [Severity.INFO]


def test_invalid_resource_is_named_with_its_path_and_nodes_stay_healthy() -> None:
    found = summarize(answers(planes=[plane(cni={"logLevl": "info"}, generation=3, status="ERROR")]))
    assert wrong(found) == ["istio-system/istio: spec.values.cni.logLevl: no such value; is logLevel meant?"]
    assert "last good" in found.findings[0].remedy
    assert not found.unhealthy


def test_agents_that_removed_the_plugin_are_done_without_a_controller() -> None:
    removed = [report(each, state="Removed", ready="False", reason="Removed") for each in NAMES]
    found = summarize(answers(planes=[], controllers=[], reports=removed))
    assert (found.health, found.progress) == (Health.HEALTHY, None)
    assert found.summary == "Removed: the plugin is removed from all nodes; no IstioControlPlane asks for it."


def test_controllers_node_faults_are_shown_at_the_nodes() -> None:
    degraded = {"type": "Degraded", "status": "True", "reason": "NodesFailed"}
    first = plane(status="ERROR", said={"error": "node-2"}, conditions=[degraded])
    assert wrong(summarize(answers(planes=[first]))) == ["istio-system/istio: the controller reports: node-2"]
    assert not wrong(summarize(answers(planes=[first], reports=instead(REPORTS, report("node-2", ready="False")))))


def test_controllers_error_is_a_finding() -> None:
    found = summarize(answers(planes=[plane(status="ERROR", said={"error": "spec.x: wrong"})]))
    assert wrong(found) == ["istio-system/istio: the controller reports: spec.x: wrong"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"controllers": []}, "no Deployment istio-cni-controller"),
        ({"controllers": [controller(0)]}, "the controller does not run"),
        ({"daemonsets": [daemonset(), daemonset(namespace="other")]}, "exists more than once"),
        (
            {"planes": Unavailable("istiocontrolplanes.install.istio.io", Cause.NO_DEFINITION, "404: not found")},
            "does not know istiocontrolplanes.install.istio.io",
        ),
    ],
)
def test_missing_part_is_a_finding(changed: dict[str, Any], said: str) -> None:
    found = summarize(answers(**changed))
    assert found.health is Health.DEGRADED
    assert any(said in each for each in wrong(found)), wrong(found)


def test_stuck_deletion_has_a_remedy() -> None:
    found = summarize(
        answers(planes=[plane(deletionTimestamp=ago(minutes=9))], daemonsets=[], pods=[], reports=[], controllers=[])
    )
    (only,) = found.findings
    assert "neither agents nor controller" in only.message
    assert "finalizers" in only.remedy


def refused(resource: str) -> Unavailable:
    return Unavailable(resource, Cause.FORBIDDEN, f'403: {resource} is forbidden: User "jane" cannot list resource')


def test_missing_right_makes_health_unknown_and_names_the_right() -> None:
    found = summarize(answers(nodes=refused("nodes"), pods=refused("pods")))
    assert found.health is Health.UNKNOWN
    (only,) = found.findings
    assert only.message == "missing the right to list nodes and pods"
    assert "--verb=list,watch --resource=nodes,pods" in only.remedy
    assert "--user=jane" in only.remedy
    assert [each.name for each in found.nodes] == [*NAMES]


def test_observed_fault_outweighs_a_missing_right() -> None:
    failing = instead(REPORTS, report("node-2", ready="False"))
    assert summarize(answers(nodes=refused("nodes"), reports=failing)).health is Health.DEGRADED


@pytest.mark.parametrize("part", ["planes", "reports", "nodes", "daemonsets", "pods", "controllers"])
def test_missing_right_makes_no_node_unhealthy(part: str) -> None:
    found = summarize(answers(**{part: refused(part)}))
    assert found.health is Health.UNKNOWN
    assert not found.unhealthy


def test_missing_features_and_mixed_releases_are_notes() -> None:
    lacking = {"name": "iptables-legacy", "missing": [{"feature": "tproxy", "reason": "no module"}]}
    found = summarize(answers(reports=instead(REPORTS, report("node-1", backend=lacking, version="0.0.9"))))
    assert found.health is Health.HEALTHY
    assert [each.message for each in found.findings] == [
        "1 node lacks tproxy (iptables-legacy): pods that ask for it fail there",
        "agents of several releases run: 0.0.9 on 1, 0.1.0 on 2",
    ]


def test_empty_report_is_read() -> None:
    found = summarize(answers(reports=[*REPORTS[:2], {"metadata": {"name": "node-3"}}]))
    assert (the_unhealthy_node(found).state, the_unhealthy_node(found).reason) == (State.UNKNOWN, "NoReport")


def test_five_thousand_nodes_are_judged_one_by_one() -> None:
    names = [f"node-{each}" for each in range(5000)]
    found = summarize(
        answers(
            nodes=[node(each) for each in names],
            pods=[pod(each) for each in names],
            reports=[report(each) for each in names[1:]],
            daemonsets=[daemonset(5000)],
        )
    )
    assert found.summary == "Degraded: 1 of 5,000 nodes (1 Unknown)."


MISSING = never_reported("node-1", "FailedMount", "cniBinDir /x is not on this node")
WAITING = [pod("node-1", "ContainerCreating", "0/1"), pod("node-2", generation="2"), pod("node-3", generation="2")]


def notes(found: ClusterStatus) -> list[str]:
    return [each.message for each in found.findings if each.severity is Severity.INFO]


def test_blocked_rollout_names_the_node_the_reason_and_the_remedy() -> None:
    rolled = daemonset(updated=1, unavailable=1)
    found = summarize(answers(daemonsets=[rolled], reports=instead(REPORTS, MISSING), pods=WAITING))
    (said,) = notes(found)
    assert said == (
        "the rollout waits for node-1 (FailedMount: cniBinDir /x is not on this node), with 2 agents still to be replaced: at "
        "most 1 node may be without a ready agent (cni.maxUnavailable), and 1 is"
    )
    (remedy,) = [each.remedy for each in found.findings if each.severity is Severity.INFO]
    assert remedy.endswith("--namespace istio-system --reuse-values --set cni.maxUnavailable=2")


@pytest.mark.parametrize(
    ("updated", "unavailable", "at_most", "held_up"),
    [
        (1, 1, 1, True), (1, 1, 2, False), (1, 1, "25%", True), (1, 1, "34%", False), (1, 2, "34%", True),
        (3, 1, 1, False), (1, 0, 1, False),
    ],
)  # fmt: skip
def test_rollout_is_blocked_at_max_unavailable(
    updated: int, unavailable: int, at_most: int | str, held_up: bool
) -> None:
    rolled = daemonset(updated=updated, unavailable=unavailable, at_most=at_most)
    found = summarize(answers(daemonsets=[rolled], reports=instead(REPORTS, MISSING), pods=WAITING))
    assert any("the rollout waits for" in each for each in notes(found)) is held_up


NEWER = pod("node-1", "ContainerCreating", "0/1", creationTimestamp=ago(minutes=5))  # than node-1's trouble
ROLLOUT_BLOCKED = {"type": "Degraded", "status": "True", "reason": "RolloutBlocked"}


@pytest.mark.parametrize(
    ("first", "known", "waits"),
    [
        (NEWER, {}, False),
        (pod("node-1", "Terminating", "0/1", deletionTimestamp=ago(minutes=5)), {}, False),
        (WAITING[0], {}, True),
        (NEWER, {"planes": []}, False),
        (NEWER, {"planes": [plane(conditions=[ROLLOUT_BLOCKED])]}, True),  # the controller may not, by its own word
        (NEWER, {"controllers": [controller(0)]}, True),
        (NEWER, {"controllers": []}, True),
        (NEWER, {"controllers": Unavailable("deployments.apps", Cause.FORBIDDEN, "")}, True),
    ],
)
def test_rollout_that_passes_a_node_waits_for_none(first: dict[str, Any], known: dict[str, Any], waits: bool) -> None:
    rolled = daemonset(updated=1, unavailable=1)
    others = [report(each, settings=None) for each in NAMES] if known == {"planes": []} else REPORTS
    reports = instead(others, MISSING)
    found = summarize(answers(daemonsets=[rolled], reports=reports, pods=[first, *WAITING[1:]], **known))
    (said,) = [each for each in found.findings if "the rollout" in each.message]
    assert ("waits for node-1" in said.message, "passes node-1" in said.message) == (waits, not waits)
    assert "2 agents still to be replaced" in said.message
    assert ("cni.maxUnavailable" in said.remedy) is (waits or known == {"planes": []})


def test_rollout_names_only_the_nodes_that_it_waits_for() -> None:
    rolled = daemonset(updated=2, unavailable=2, at_most=2)
    broken = report("node-2", ready="False", reason="NotInstalled", message="no conflist")
    pods = [NEWER, pod("node-2", "Running", "0/1"), WAITING[2]]
    (said,) = notes(
        summarize(answers(daemonsets=[rolled], reports=instead(instead(REPORTS, MISSING), broken), pods=pods))
    )
    assert said.startswith("the rollout waits for node-2 (NotInstalled: no conflist), with 1 agent still")


def test_rollout_names_no_node_when_no_agent_is_outdated() -> None:
    rolled = daemonset(updated=1, unavailable=1)
    pods = [pod("node-1", "ContainerCreating", "0/1"), pod("node-2"), pod("node-3")]
    assert notes(summarize(answers(daemonsets=[rolled], reports=instead(REPORTS, MISSING), pods=pods))) == []


@pytest.mark.parametrize("gone", [True, False])
def test_plugin_file_in_use_is_named_after_the_uninstall(gone: bool) -> None:
    stays = report(
        "node-2", state="Removed", ready="False", reason="Removed", settings=None,
        message="removed: as asked. /opt/cni/bin/istio-cni stays, as it is named in /etc/cni/net.d/00-multus.conf",
        plugin={"path": "/opt/cni/bin/istio-cni"},
    )  # fmt: skip
    others = [report(each, state="Removed", ready="False", reason="Removed", settings=None) for each in NAMES]
    without: dict[str, Any] = {"daemonsets": [], "controllers": [], "pods": []} if gone else {}
    found = summarize(answers(reports=instead(others, stays), planes=[], **without))
    assert found.health is Health.DEGRADED
    assert any("node-2: " in each and "00-multus.conf" in each for each in wrong(found)), wrong(found)


def test_other_meshes_in_the_chain_are_a_note() -> None:
    conflist = {
        "directory": "/etc/cni/net.d",
        "file": "10-calico.conflist",
        "form": "Chained",
        "meshes": ["linkerd-cni"],
    }
    found = summarize(answers(reports=instead(REPORTS, report("node-2", conflist=conflist))))
    assert found.health is Health.HEALTHY
    (only,) = found.findings
    assert only.severity is Severity.INFO
    assert only.message.startswith("1 node runs linkerd-cni (Linkerd) in the same chain")
