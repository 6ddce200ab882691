"""What the controller does about single nodes: the startup taint, and why an agent does not run."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from installer.controller.client import Api
from installer.controller.node_lifecycle import ConditionPatch
from installer.controller.taints import KEY
from installer.controller.writer import AT_ONCE
from installer.fleet import objects
from installer.fleet.node_health import PATIENCE
from installer.kube.names import CONTROLLER, PARKED
from tests.controller.stage import NAMESPACE, SOON, now
from tests.support.wait import until

if TYPE_CHECKING:
    from tests.controller.conftest import Run
    from tests.controller.stage import Stage

pytestmark = pytest.mark.apiserver

OTHER = "of.others/taint"
OURS = {"key": KEY, "effect": "NoSchedule"}


def test_the_taint_is_removed_when_report_and_pod_are_ready_and_others_stay(stage: Stage, controller: Run) -> None:
    others = {"key": OTHER, "effect": "NoSchedule"}
    stage.add_node("node1", taints=[OURS, others, {"key": KEY, "effect": "NoExecute"}])
    kept = [each for each in stage.taints("node1") if each != KEY]
    assert OTHER in kept
    with controller():
        stage.report("node1", stage.apply({}), state="NotInstalled", problem="no network configuration yet")
        stage.add_agent("node1", ready=False)
        stage.becomes("ERROR")
        stage.report("node1", stage.resource())
        until(lambda: stage.nodes().get("failed") == 0, SOON, "the report is heard")
        assert KEY in stage.taints("node1"), "its pod is not ready"
        stage.set_agent("node1", ready=True)
        until(lambda: stage.taints("node1") == kept, SOON, "the taint is off, with both effects")
        until(lambda: dict(stage.events("node1", "default")).get("IstioCNIReady"), SOON, "it is told")


def test_new_nodes_are_tainted_if_enabled_and_running_ones_are_not(stage: Stage, controller: Run) -> None:
    stage.add_node("running")
    stage.add_agent("running")
    stage.report("running")
    with controller(taint=True):
        stage.apply({})
        stage.add_node("new")
        until(lambda: KEY in stage.taints("new"), SOON, "the new node has the taint")
        assert KEY not in stage.taints("running")
        stage.add_agent("new")
        stage.report("new", stage.resource())
        until(lambda: KEY not in stage.taints("new"), SOON, "the taint is off again")


def test_the_taint_is_removed_where_no_plugin_is_wanted(stage: Stage, controller: Run) -> None:
    with controller(taint=True):
        stage.apply({"cni": {"enabled": False}})
        stage.becomes("NONE")
        stage.add_node("node1", taints=[OURS])
        until(lambda: KEY not in stage.taints("node1"), SOON, "the taint is off")


def test_nodes_without_daemonsets_are_neither_tainted_nor_awaited(empty_stage: Stage, controller: Run) -> None:
    stage = empty_stage
    fargate, virtual = {"eks.amazonaws.com/compute-type": "fargate"}, {"type": "virtual-kubelet"}
    left_out = [{"key": key, "operator": "NotIn", "values": [value]} for key, value in (fargate | virtual).items()]
    required = {"nodeSelectorTerms": [{"matchExpressions": left_out}]}
    stage.install_chart({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}})
    stage.add_node("running")
    stage.add_agent("running")
    with controller(taint=True):
        stage.report("running", stage.apply({}))
        stage.add_node("fargate", labels=fargate)
        stage.add_node(
            "virtual", labels=virtual, taints=[{"key": "virtual-kubelet.io/provider", "effect": "NoSchedule"}]
        )
        stage.add_node("tainted", labels=fargate, taints=[OURS])
        stage.add_node("new")  # after the others: when it has the taint they have been looked at
        until(lambda: KEY in stage.taints("new"), SOON, "the new node has the taint")
        until(lambda: KEY not in stage.taints("tainted"), SOON, "the taint is off where no agent can come")
        assert all(KEY not in stage.taints(each) for each in ("fargate", "virtual"))
        until(lambda: stage.events("tainted", "default"), SOON, "it is told")
        assert "this node has no Istio CNI plugin" in dict(stage.events("tainted", "default"))["IstioCNIReady"]
        stage.add_agent("new")
        stage.report("new", stage.resource())
        stage.becomes("HEALTHY")
        until(lambda: stage.nodes().get("total") == 2, SOON, "the two with an agent are counted")
        stage.delete()
        for each in ("running", "new"):
            stage.report(each, state="Removed")
        until(
            lambda: stage.daemonset()["spec"]["template"]["spec"]["nodeSelector"].keys() & PARKED, SOON, "it is parked"
        )
        for each in ("running", "new"):
            stage.end_agent(each)
        until(stage.is_gone, SOON, "the resource is gone")


def test_no_node_gets_a_taint_that_the_agent_does_not_tolerate(stage: Stage, controller: Run) -> None:
    """Whoever takes the toleration out of the DaemonSet would have new nodes without an agent for ever."""
    patch = [{"op": "remove", "path": "/spec/template/spec/tolerations"}]
    where = ("daemonset", "istio-cni-node", f"--namespace={NAMESPACE}")
    stage.cluster.kubectl("patch", *where, "--type=json", f"--patch={json.dumps(patch)}")
    with controller(taint=True):
        stage.apply({})
        stage.add_node("first")
        stage.add_node("tainted", taints=[OURS])
        until(lambda: KEY not in stage.taints("tainted"), SOON, "the taint is off")
        assert KEY not in stage.taints("first")


def test_node_and_resource_name_a_missing_directory_and_its_remedy(stage: Stage, controller: Run) -> None:
    stage.add_node("node1")
    with controller():
        stage.apply({})
        uid = stage.add_agent("node1", ready=False, waiting={"reason": "ContainerCreating"})
        stage.core.create_namespaced_event(
            NAMESPACE,
            {
                "metadata": {"generateName": "agent.", "namespace": NAMESPACE},
                "involvedObject": {"kind": "Pod", "uid": uid, "namespace": NAMESPACE, "name": "istio-cni-node-node1"},
                "type": "Warning",
                "reason": "FailedMount",
                "message": 'MountVolume.SetUp failed for volume "cni-bin-dir" : hostPath type check failed: '
                "/opt/cni/bin is not a directory",
                "lastTimestamp": "2026-01-01T00:00:00Z",
            },  # type: ignore[arg-type]
        )
        said = stage.becomes("ERROR", within=PATIENCE.total_seconds() + SOON)
        until(lambda: stage.ready("node1") == ("False", "FailedMount"), SOON, "the node's IstioCNINode says it")
        seen = stage.cluster.kubectl("get", "istiocninodes")
        assert [each["kind"] for each in stage.istiocninode("node1")["metadata"]["ownerReferences"]] == ["Node"]
        stage.set_agent("node1")
        stage.report("node1", stage.resource())
        stage.becomes("HEALTHY")
        assert stage.ready("node1") == ("True", "Redirecting"), "its agent's word counts from then on"
    for text in (said["error"], seen):
        assert "cniBinDir /opt/cni/bin is not on this node" in text
        assert "spec.values.cni.cniBinDir" in text
    assert "node node1: FailedMount" in said["error"]


async def test_a_running_agents_condition_is_not_replaced(stage: Stage) -> None:
    """Its report is old, and the watch of pods has not told yet that it runs: it is asked for."""
    stage.add_node("node1")
    stage.add_agent("node1")
    stage.report("node1")
    kubeconfig = stage.cluster.kubeconfig("speaker", token=stage.cluster.token(NAMESPACE, CONTROLLER))
    api = Api(kubeconfig, NAMESPACE, lambda: True)
    condition = {"type": "Ready", "status": "False", "reason": "Said", "message": "", "lastTransitionTime": now()}
    seen, node = stage.istiocninode("node1"), objects.read_node({"metadata": {"name": "node1", "uid": "1"}})
    words = ConditionPatch(node, seen["metadata"]["resourceVersion"], condition, contradicts=True)
    assert await api.patch_condition(words) is None
    assert stage.istiocninode("node1") == seen
    stage.set_agent("node1", ready=False, waiting={"reason": "CrashLoopBackOff"})
    assert await api.patch_condition(words)
    await api.close()
    assert stage.ready("node1") == ("False", "Said")


def test_refusals_on_many_nodes_do_not_delay_the_others(empty_stage: Stage, controller: Run) -> None:
    stage = empty_stage
    stage.install_chart()
    rights = stage.rbac.read_cluster_role("istio-cni-controller").rules or []
    for each in rights:
        if "istiocninodes" in (each.resources or ()):
            each.verbs = ["list", "watch"]
    stage.rbac.patch_cluster_role("istio-cni-controller", {"rules": rights})
    names = {f"node{number}" for number in range(AT_ONCE + 10)}
    for name in names:
        stage.add_node(name)
        stage.add_agent(name, ready=False, waiting={"reason": "ErrImagePull"})
    acting = controller()

    def refused() -> Counter[str]:
        lines = map(json.loads, acting.log.read_text().splitlines())
        return Counter(each["object"] for each in lines if each["msg"] == "the API server refused: IstioCNINode")

    with acting:
        stage.apply({})
        stage.becomes("ERROR")
        until(lambda: refused().keys() == names, SOON, "it was tried on all of them")
        assert {*refused().values()} == {1}, "and on none again within its minute"


def test_a_node_whose_agent_never_started_delays_no_uninstall(stage: Stage, controller: Run) -> None:
    stage.add_node("node1")
    with controller():
        stage.apply({})
        stage.add_agent("node1", ready=False, waiting={"reason": "ErrImagePull", "message": "no such image"})
        until(lambda: stage.ready("node1") == ("False", "ErrImagePull"), SOON, "its IstioCNINode says why")
        stage.delete()
        until(
            lambda: stage.daemonset()["spec"]["template"]["spec"]["nodeSelector"].keys() & PARKED, SOON, "it is parked"
        )
        stage.end_agent("node1")
        until(stage.is_gone, SOON, "the resource is gone")


def test_an_image_that_cannot_be_pulled_is_named(stage: Stage, controller: Run) -> None:
    stage.add_node("node1")
    with controller():
        stage.apply({})
        waiting = {
            "reason": "ImagePullBackOff",
            "message": 'Back-off pulling image "registry.example/mesh/install-cni:0"',
        }
        stage.add_agent("node1", ready=False, waiting=waiting)
        said = stage.becomes("ERROR")
    assert (
        "ImagePullBackOff: the agent's pod istio-cni-node-node1 is not ready: Back-off pulling image" in said["error"]
    )
    assert "hub, tag and pullPolicy" in said["error"]


def test_a_requested_role_is_bound_and_unbound(empty_stage: Stage, controller: Run) -> None:
    stage = empty_stage
    stage.install_chart({"controller": {"mayBind": ["of-psp"]}})
    stage.cluster.kubectl("delete", "clusterrole", "of-psp", "--ignore-not-found")
    stage.cluster.kubectl("create", "clusterrole", "of-psp", "--verb=use", "--resource=podsecuritypolicies.policy")

    def bound() -> list[str]:
        found = stage.rbac.list_namespaced_role_binding(NAMESPACE).items
        return [each.role_ref.name for each in found if each.metadata and "psp" in str(each.metadata.name)]

    with controller():
        stage.apply({"values": {"cni": {"psp_cluster_role": "of-psp"}}})
        until(lambda: bound() == ["of-psp"], SOON, "it is bound")
        stage.apply({})
        until(lambda: bound() == [], SOON, "it is not bound any more")
        stage.apply({"values": {"cni": {"psp_cluster_role": "cluster-admin"}}})
        said = stage.becomes("ERROR")
        assert "the controller may not bind ClusterRole cluster-admin" in said["error"]
        assert bound() == []
