"""Each right that the chart grants is used, by the tokens of its accounts: what nobody uses would not be granted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from installer.controller.taints import KEY
from tests.controller.stage import ACCOUNT, NAMESPACE, SOON
from tests.controller.test_with_agents import PRIMARY, agent, entry, meshed_pod
from tests.support.netns import Netns
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.chart.helm import Rendered
    from tests.controller.conftest import Run
    from tests.controller.stage import Stage

pytestmark = pytest.mark.apiserver

AGENTS = f"system:serviceaccount:{NAMESPACE}:istio-cni-node"
PSP = "of-psp"
# What a request needs besides what it is: a server-side apply that creates, a binding of a role.
UNSEEN = {("istio-cni-node", "create", "istiocninodes"), ("istio-cni-controller", "bind", "clusterroles")}


class Right(NamedTuple):
    """What a rule grants: names is empty for any."""

    account: str
    verb: str
    group: str
    resource: str
    names: tuple[str, ...]

    def is_used_by(self, request: Mapping[str, Any]) -> bool:
        """Whether a request of the account's, from the audit log, is what this grants."""
        of = request.get("objectRef", {})
        resource = "/".join(filter(None, [of.get("resource"), of.get("subresource")]))
        asked = (request["verb"], of.get("apiGroup", ""), resource)
        return asked == (self.verb, self.group, self.resource) and (not self.names or of.get("name") in self.names)


def granted(chart: Rendered) -> Iterator[Right]:
    """Yield what the chart's roles grant; each is named as the account that it is bound to."""
    for each in chart.objects:
        for rule in each["rules"] if each["kind"] in ("Role", "ClusterRole") else ():
            for verb in rule["verbs"]:
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        names = tuple(rule.get("resourceNames", ()))
                        yield Right(each["metadata"]["name"], verb, group, resource, names)


def start_pod_of_a_runtime_class(stage: Stage, node: str) -> None:
    """Have a pod of the mesh run by a RuntimeClass whose handler has a network stack of its own (F42)."""
    made = {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "locked-down"},
        "handler": "runsc",
    }
    path = stage.folder / "runtimeclass.json"
    path.write_text(json.dumps(made))
    stage.cluster.kubectl("apply", "--filename", str(path))
    meshed_pod(stage, node, runtimeClassName="locked-down")
    status: Any = {"status": {"phase": "Running", "podIPs": [{"ip": "10.9.9.9"}]}}
    stage.core.patch_namespaced_pod_status(f"web-{node}", "default", status)


def is_bound(stage: Stage) -> bool:
    return any(each.role_ref.name == PSP for each in stage.rbac.list_namespaced_role_binding(NAMESPACE).items)


async def test_every_right_is_used(empty_stage: Stage, controller: Run, tmp_path: Path) -> None:
    stage = empty_stage
    chart = stage.install_chart({"controller": {"mayBind": [PSP]}})
    stage.cluster.kubectl("delete", "clusterrole", PSP, "--ignore-not-found")
    stage.cluster.kubectl("create", "clusterrole", PSP, "--verb=use", "--resource=podsecuritypolicies.policy")
    before = {name: len([*stage.cluster.requests_of(name)]) for name in (ACCOUNT, AGENTS)}
    stage.add_node("node1", taints=[{"key": KEY, "effect": "NoSchedule"}])
    stage.add_agent("node1", ready=False, waiting={"reason": "ErrImagePull"})
    running = agent(stage, "node1", tmp_path / "node1")
    with controller():
        stage.apply({"values": {"cni": {"psp_cluster_role": PSP}}})
        until(
            lambda: stage.ready("node1") == ("False", "ErrImagePull"), SOON, "it is said for an agent that does not run"
        )
        stage.set_agent("node1", ready=False, waiting={"reason": "ContainerCreating"})
    with controller(), running:
        running.ready()
        until(lambda: is_bound(stage), SOON, "the role is bound")
        stage.apply({})
        until(lambda: not is_bound(stage), SOON, "it is bound no more")
        stage.set_agent("node1")
        stage.becomes("HEALTHY")
        until(lambda: KEY not in stage.taints("node1"), SOON, "the taint is off")
        with Netns(tmp_path / "netns") as netns:
            assert (await running.add(netns, "default", "nobody", "a-uid")).status == 1
        start_pod_of_a_runtime_class(stage, "node1")
        named = "its runtime class locked-down runs it with gVisor"
        until(lambda: named in str(stage.istiocninode("node1")), SOON, "the handler of its runtime class is known")
        stage.core.delete_namespaced_pod("web-node1", "default", grace_period_seconds=0)
        stage.cluster.kubectl("delete", "runtimeclass", "locked-down")
        (running.conf_dir / "10-k8s.conflist").unlink()
        stage.becomes("RECONCILING")
        (running.conf_dir / "10-k8s.conflist").write_text(PRIMARY)
        until(lambda: entry(running), SOON, "it is put back")
        stage.becomes("HEALTHY")
        stage.add_node("node2")
        stage.report("node2", problem="its runtime reads another directory")
        stage.apply({"values": {"cni": {"tag": "2"}}})
        until(lambda: stage.image().endswith(":2"), SOON, "the DaemonSet has the tag")
        stage.add_agent("node2", ready=False)
        stage.roll_out_stands(nodes=2, replaced=1)
        until(lambda: "delete pods/istio-cni-node-node1" in stage.writes(), SOON, "it passes node2")
    used = {
        "istio-cni-controller": [*stage.cluster.requests_of(ACCOUNT)][before[ACCOUNT] :],
        "istio-cni-node": [*stage.cluster.requests_of(AGENTS)][before[AGENTS] :],
    }
    unused = [
        right
        for right in granted(chart)
        if (right.account, right.verb, right.resource) not in UNSEEN
        and not any(right.is_used_by(each) for each in used[right.account])
    ]
    assert unused == []
