"""What an agent tells those whose pods do not come up."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.kubernetes.conftest import SOON, events
from tests.support.wait import until

if TYPE_CHECKING:
    from tests.kubernetes.conftest import Node
    from tests.support.agent import AgentProcess
    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver

EXCLUDED = "kube-system"  # by the agent's own settings


def create(cluster: Cluster, node: Node, name: str, namespace: str = "default") -> None:
    """Create a meshed pod with an init container of its own."""
    manifest: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "annotations": {"sidecar.istio.io/status": "{}"}},
        "spec": {
            "nodeName": node.name,
            "containers": [{"name": each, "image": "none"} for each in ("app", "istio-proxy")],
            "initContainers": [{"name": "migrate", "image": "none"}],
        },
    }
    cluster.kubectl("create", "--filename=-", text=json.dumps(manifest))


def fails(cluster: Cluster, name: str, namespace: str = "default") -> None:
    """Write what a kubelet does of an init container that has failed."""
    ended = {"name": "migrate", "state": {"waiting": {}}, "lastState": {"terminated": {"exitCode": 1}}, "ready": False,
             "restartCount": 1, "image": "", "imageID": ""}  # fmt: skip
    status = json.dumps({"status": {"initContainerStatuses": [ended]}})
    cluster.kubectl("patch", "pod", name, f"--namespace={namespace}", "--subresource=status", f"--patch={status}")


def test_each_problem_is_one_event_at_its_pod(cluster: Cluster, node: Node, running: AgentProcess) -> None:
    names = [f"{each}-{node.name}" for each in ("excluded", "failing", "patient")]
    excluded, failing, patient = names
    try:
        create(cluster, node, excluded, EXCLUDED)
        create(cluster, node, patient, "default")
        create(cluster, node, failing, "default")
        fails(cluster, failing)
        until(lambda: events(cluster, failing), SOON, "what fails is told of")  # F21
        until(lambda: events(cluster, excluded, EXCLUDED), SOON, "and what was injected in vain")  # F22
        fails(cluster, patient)
        until(lambda: events(cluster, patient), SOON, "and what fails later")
        ((reason, said),) = events(cluster, failing)
        assert reason == "InitContainerBeforeSidecar"
        assert "excludeOutboundIPRanges" in said
        ((reason, said),) = events(cluster, excluded, EXCLUDED)
        assert reason == "InjectedButExcluded"
        assert f"namespace {EXCLUDED} is excluded" in said
        assert running.process
        assert running.process.poll() is None
    finally:
        cluster.kubectl("delete", "pod", failing, patient, "--force", "--ignore-not-found")
        cluster.kubectl("delete", "pod", excluded, f"--namespace={EXCLUDED}", "--force", "--ignore-not-found")


def test_a_pod_about_which_no_event_is_taken_holds_up_no_other(
    cluster: Cluster, node: Node, running: AgentProcess
) -> None:  # F37
    going, first, later = f"going-{node.name}", f"first-{node.name}", f"later-{node.name}"
    cluster.kubectl("create", "namespace", going)
    create(cluster, node, first, going)
    create(cluster, node, later)
    try:
        cluster.kubectl("delete", "namespace", going, "--wait=false")  # no controller ends it here
        fails(cluster, first, going)
        until(lambda: "because it is being terminated" in running.log.read_text(), SOON, "the Event is refused")
        fails(cluster, later)
        until(lambda: events(cluster, later), SOON, "the other one is told of")
    finally:
        cluster.kubectl("delete", "pod", first, f"--namespace={going}", "--force", "--ignore-not-found")
        cluster.kubectl("delete", "pod", later, "--force", "--ignore-not-found")
        cluster.kubectl(
            "replace",
            "--raw",
            f"/api/v1/namespaces/{going}/finalize",
            "--filename=-",
            text=json.dumps(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": going}, "spec": {"finalizers": []}}
            ),
        )
