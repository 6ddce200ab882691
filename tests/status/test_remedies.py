"""What people are told is true where it is told, and what they are told to do can be done: no command lacks a part."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from installer.fleet.node_health import State
from installer.status.changes import describe_changes
from installer.status.data import as_json
from installer.status.model import Answers, Cause, Health, Severity, Unavailable
from installer.status.text import render_status
from installer.terminal.tables import Style
from tests.status.objects import (
    NAMES,
    NOW,
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
    from installer.status.model import ClusterStatus, Finding, NodeStatus, Object

pytestmark = pytest.mark.pure

REPORTS = [report(each) for each in NAMES]
PODS = [pod(each) for each in NAMES]
NODES = [node(each) for each in NAMES]
PLUGIN = {"path": "/home/kubernetes/bin/istio-cni"}
PARKED = daemonset(0, selector={"cni.istio.io/parked": "true"})
REMOVED = [report(each, state="Removed", ready="False", reason="Removed") for each in NAMES]


def the(found: ClusterStatus, name: str = "node-2") -> NodeStatus:
    return next(each for each in found.nodes if each.name == name)


def wrong(found: ClusterStatus) -> list[Finding]:
    return [each for each in found.findings if each.severity is Severity.ERROR]


def shown(found: ClusterStatus) -> str:
    return render_status(found, NOW, Style())


LEFT: dict[str, dict[str, Any]] = {
    "uninstalled, and the resource is still there": {"daemonsets": [], "pods": [], "controllers": []},
    "uninstalled, without a resource": {"planes": [], "daemonsets": [], "pods": [], "controllers": []},
    "uninstalled, and the resource is being deleted": {
        "planes": [plane(deletionTimestamp=ago(minutes=9))],
        "daemonsets": [],
        "pods": [],
        "controllers": [],
    },
    "the DaemonSet may not be asked for": {
        "daemonsets": Unavailable("daemonsets.apps", Cause.FORBIDDEN, "403: no"),
        "pods": [],
        "reports": REPORTS[:2],
    },
}


@pytest.mark.parametrize("changed", LEFT.values(), ids=LEFT)
def test_remedies_never_have_an_empty_namespace(changed: dict[str, Any]) -> None:
    for pods in ([], PODS, [pod(each, "CrashLoopBackOff", "0/1") for each in NAMES]):
        assert "--namespace  " not in shown(summarize(answers(**changed | {"pods": pods})))


@pytest.mark.parametrize("changed", [*LEFT.values()][:3], ids=[*LEFT][:3])
def test_missing_daemonset_marks_reports_as_last_and_has_a_remedy(
    changed: dict[str, Any],
) -> None:
    it = the(summarize(answers(**changed | {"reports": instead(REPORTS, report("node-2", plugin=PLUGIN))})))
    assert (it.state, it.reason) == (State.UNKNOWN, "NoAgent")
    assert "last reported as installed" in it.message
    assert "is still in the runtime's chain" not in it.message
    assert it.remedy == (
        "To make sure, with the image of release 0.1.0 for IMAGE: kubectl debug node/node-2 --profile=general --image=IMAGE "
        "-- install-cni uninstall --root=/host --from=/etc/cni/net.d --from=/home/kubernetes/bin"
    )


def test_node_that_lost_its_agent_early_has_a_command_with_the_image() -> None:
    found = summarize(
        answers(planes=[], reports=[report("node-1", plugin=PLUGIN), *REMOVED[1:]], daemonsets=[PARKED], pods=[])
    )
    it = the(found, "node-1")
    assert (it.state, it.reason) == (State.UNKNOWN, "NoAgent")
    assert "last reported as installed" in it.message
    assert it.remedy == (
        "To make sure: kubectl debug node/node-1 --profile=general --image=registry.example/istio/install-cni:0.1.0 "
        "-- install-cni uninstall --root=/host --from=/etc/cni/net.d --from=/home/kubernetes/bin"
    )
    assert f"\n    {it.remedy.partition(': ')[2]}\n" in shown(found)


def test_command_has_a_placeholder_for_an_unknown_directory() -> None:
    it = the(summarize(answers(daemonsets=[], pods=[], controllers=[])))
    assert "its cniBinDir for CNI_BIN_DIR" in it.remedy
    assert it.remedy.endswith("--from=/etc/cni/net.d --from=CNI_BIN_DIR")


def test_namespace_without_the_daemonset_is_not_found_rather_than_not_installed() -> None:
    found = summarize(Answers(nodes=NODES, reports=REPORTS, planes=[plane()], namespace="shop"))
    assert found.health is Health.DEGRADED
    assert found.summary == "Not found: namespace shop has no DaemonSet istio-cni-node."
    (only,) = found.findings
    assert only.message == "namespace shop has no DaemonSet istio-cni-node"
    assert only.remedy == "Without -n it is found wherever it is: install-cni status"
    assert not found.nodes, "nobody has looked for the agents where they may be"
    assert "helm" not in shown(found)
    going = summarize(Answers(planes=[plane(deletionTimestamp=ago(minutes=9))], namespace="shop"))
    assert [each.message for each in going.findings] == [only.message]


def test_the_given_namespace_is_the_agents() -> None:
    refused = Unavailable("daemonsets.apps", Cause.FORBIDDEN, "403: no")
    found = summarize(answers(daemonsets=refused, pods=PODS[:2], namespace="mesh"))
    assert the(found, "node-3").remedy == "Look into it: kubectl --namespace mesh describe daemonset istio-cni-node"


SINCE: list[tuple[str, dict[str, Any], bool]] = [
    ("Ready", {}, True),
    ("Failed, as the agent says", {"reports": instead(REPORTS, report("node-2", ready="False"))}, True),
    ("Failed, as its pod says", {"pods": instead(PODS, pod("node-2", "CrashLoopBackOff", "0/1"))}, False),
    ("Unknown", {"pods": [PODS[0], PODS[2]]}, False),
    ("Unknown, as its node is", {"nodes": instead(NODES, node("node-2", "NotReady"))}, False),
    ("Updating", {"reports": instead(REPORTS, report("node-2", settings=("istio", 1)))}, False),
    ("Removing", {"planes": [plane(enabled=False)]}, False),
    ("Removed", {"planes": [plane(enabled=False)], "reports": REMOVED}, False),
]


@pytest.mark.parametrize(("changed", "is_known"), [each[1:] for each in SINCE], ids=[each[0] for each in SINCE])
def test_since_comes_from_the_agents_condition(changed: dict[str, Any], is_known: bool) -> None:
    assert (the(summarize(answers(**changed))).since is not None) == is_known


def test_uninstall_with_the_resource_says_how_to_reinstall() -> None:
    for daemonsets in ([PARKED], [daemonset()]):
        found = summarize(answers(planes=[], reports=REMOVED, daemonsets=daemonsets))
        assert found.health is Health.HEALTHY
        (note,) = found.findings
        assert note.severity is Severity.INFO
        assert note.message == "the plugin was removed together with its IstioControlPlane"
        assert "spec.cni.enabled true" in note.remedy
        assert "chart's settings" not in shown(found)
    going = answers(planes=[], reports=REMOVED, daemonsets=[daemonset(deletionTimestamp=ago(seconds=5))])
    assert not summarize(going).findings


def test_stopped_controller_has_a_remedy_that_names_its_pods() -> None:
    (only,) = wrong(summarize(answers(controllers=[controller(0)])))
    assert only.remedy.endswith(
        "kubectl --namespace istio-system describe pods --selector k8s-app=istio-cni-controller"
    )


def test_an_image_that_cannot_be_pulled_is_named_with_the_reason() -> None:
    said = 'the agent\'s pod x is not ready: Back-off pulling image "r.example/x:1": not found; see whether hub, tag are right'
    pods = instead(PODS, pod("node-2", "ErrImagePull", "0/1"))
    told = summarize(answers(pods=pods, reports=instead(REPORTS, never_reported("node-2", "ImagePullBackOff", said))))
    assert (the(told).reason, the(told).message) == ("ErrImagePull", said)
    other = never_reported("node-2", "FailedMount", "cniBinDir /x is not on this node")
    for reports in (REPORTS, instead(REPORTS, other)):
        untold = the(summarize(answers(pods=pods, reports=reports)))
        assert untold.message == (
            "the agent's pod istio-cni-node-node-2 is not ready: ErrImagePull; check hub, tag and pullPolicy, and whether the "
            "node reaches that registry"
        )


def test_a_chart_is_installed_into_a_namespace_that_may_be_missing() -> None:
    (only,) = summarize(Answers(nodes=NODES)).findings
    assert only.remedy.endswith("helm install istio-cni charts/istio-cni --namespace istio-system --create-namespace")


BROKEN = "/etc/cni/net.d/10-calico.conflist is no valid network configuration: repair it. Pods are redirected by nft"


@pytest.mark.parametrize(
    ("it", "said"),
    [
        (report("node-2"), ""),
        (report("node-2", reason="InvalidConflist", message=BROKEN), BROKEN),
        (report("node-2", ready="False", reason="NotInstalled", message="why not"), "why not"),
    ],
)
def test_unready_node_quotes_the_report_as_possible_cause(it: Object, said: str) -> None:
    found = the(summarize(answers(nodes=instead(NODES, node("node-2", "NotReady")), reports=instead(REPORTS, it))))
    assert (found.state, found.reason) == (State.UNKNOWN, "NodeNotReady")
    assert found.message == "Kubernetes reports this node as not ready" + (
        f"; the node's report may name the cause: {said}" if said else ""
    )
    assert found.remedy == "Look into it: kubectl describe node node-2"


def flawed(*names: str, reason: str = "InvalidConflist", message: str = BROKEN) -> Answers:
    return answers(
        nodes=[node(each) for each in names],
        pods=[pod(each) for each in names],
        reports=[report(each, reason=reason, message=message) for each in names],
    )


def test_warning_on_a_redirecting_node_is_a_finding() -> None:
    found = summarize(flawed("node-1", "node-2"))
    assert found.health is Health.DEGRADED
    assert found.summary == "Degraded: 1 problem in the cluster."
    assert [(each.message, each.remedy) for each in wrong(found)] == [(f"node-1 and node-2: {BROKEN}", "")]
    assert {each.state for each in found.nodes} == {State.READY}
    read = json.loads(as_json(found))["nodes"][0]
    assert (read["healthy"], read["warning"]) == (True, {"reason": "InvalidConflist", "message": BROKEN})


@pytest.mark.parametrize(
    ("number", "others"), [(3, " and node-3"), (4, ", node-3 and 1 more node"), (60, " 57 more nodes")]
)
def test_nodes_with_the_same_warning_are_grouped(number: int, others: str) -> None:
    (only,) = wrong(summarize(flawed(*(f"node-{each}" for each in range(1, number + 1)))))
    assert others in only.message.removesuffix(f": {BROKEN}")


def test_distinct_node_warnings_are_limited() -> None:
    names = [f"node-{each:03}" for each in range(100)]
    many = flawed(*names)
    each_its_own = [
        report(each, reason="PodsNotRedirected", message=f"pod shop/{each} is not redirected") for each in names
    ]
    found = wrong(summarize(replace(many, reports=each_its_own)))
    assert [each.message for each in found[:2]] == [f"{each}: pod shop/{each} is not redirected" for each in names[:2]]
    assert found[-1].message == "90 more nodes say PodsNotRedirected"
    assert "kubectl get istiocninodes" in found[-1].remedy
    assert len(found) == 11


def test_resource_problem_is_not_repeated_per_node() -> None:
    invalid = flawed(*NAMES, reason="InvalidSettings", message="the IstioControlPlane is wrong: spec.x")
    assert [each.message for each in wrong(summarize(replace(invalid, planes=[plane(cni={"logLevl": "info"})])))] == [
        "istio-system/istio: spec.values.cni.logLevl: no such value; is logLevel meant?"
    ]
    by_controller = plane(status="ERROR", said={"error": "spec.x: wrong"})
    assert len(wrong(summarize(replace(invalid, planes=[by_controller])))) == 1
    unasked = Unavailable("istiocontrolplanes.install.istio.io", Cause.FORBIDDEN, "403: no")
    (alone,) = wrong(summarize(replace(invalid, planes=unasked)))
    assert alone.message == "node-1, node-2 and node-3: the IstioControlPlane is wrong: spec.x"


@pytest.mark.parametrize(
    ("done", "total", "said"),
    [(0, 1, "0 of 1 nodes are done"), (1, 3, "1 of 3 nodes is done"), (2, 3, "2 of 3 nodes are done")],
)
def test_progress_is_a_sentence(done: int, total: int, said: str) -> None:
    names = NAMES[:total]
    reports = [report(each, settings=("istio", 3 if at < done else 2)) for at, each in enumerate(names)]
    found = summarize(answers(planes=[plane(generation=3)], nodes=NODES[:total], pods=PODS[:total], reports=reports))
    assert found.summary == f"Updating: {said}."


def test_pipe_output_explains_an_unhealthy_control_plane() -> None:
    ill = summarize(answers(planes=[plane(status="ERROR", said={"error": "spec.x: wrong"})]))
    assert "istio-system/istio: ERROR, generation 2: spec.x: wrong" in describe_changes(None, ill)
    moving = summarize(answers(planes=[plane(status="UPDATING", said={"statusString": "1 of 3 nodes has it"})]))
    assert "istio-system/istio: UPDATING, generation 2: 1 of 3 nodes has it" in describe_changes(None, moving)
    well = summarize(answers(planes=[plane(said={"statusString": "all is well"})]))
    assert "istio-system/istio: HEALTHY, generation 2" in describe_changes(None, well)


@pytest.mark.parametrize("reason", ["NotServing", "NotInstalled", "PodCacheNotSynced"])
def test_a_starting_agent_has_patience(reason: str) -> None:
    starts = report("node-2", ready="False", reason=reason, message="soon")
    since = NOW - timedelta(hours=3, minutes=20)  # as in `report`
    states = {}
    for name, now in (
        ("its condition is new", since + timedelta(seconds=59)),
        ("another clock is a little ahead", since - timedelta(seconds=2)),
        ("its time is over", since + timedelta(seconds=61)),
    ):
        unready = instead(PODS, pod("node-2", "Running", "0/1"))
        it = the(summarize(answers(reports=instead(REPORTS, starts), pods=unready), now))
        assert (it.reason, it.message) == (reason, "soon")
        states[name] = it.state
    assert [*states.values()] == [State.REPAIRING, State.REPAIRING, State.FAILED], states


def test_an_agent_after_an_uninstall_has_patience_until_it_has_installed() -> None:
    it = the(
        summarize(
            answers(
                reports=instead(REPORTS, REMOVED[1]),
                pods=instead(PODS, pod("node-2", "Running", "0/1", changed=ago(seconds=20))),
            )
        )
    )
    assert it.state is State.UPDATING
