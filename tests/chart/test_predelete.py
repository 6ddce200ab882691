"""What `helm uninstall` runs first: it ends the agents while they have their rights, and never waits for ever."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from installer.teardown import AgentPod, Progress
from tests.chart.test_install import rights
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chart.conftest import Applied, Release, Render
    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver

NAME = "istio-cni-teardown"
SOON = 60.0  # seconds


@pytest.fixture
def hook(cluster: Cluster, release: Release, render: Render, apply: Applied) -> dict[str, Any]:
    """The hook's objects in the release's namespace, by kind; nobody runs the Job."""
    made = {each["kind"]: each for each in render(None, f"--namespace={release.namespace}").hooks}
    assert sorted(made) == ["Job", "Role", "RoleBinding", "ServiceAccount"]
    items = [*made.values()]
    done = apply({"apiVersion": "v1", "kind": "List", "items": items}, "--validate=strict")
    assert done.returncode == 0, done.stderr
    return made


class Teardown:
    """`install-cni teardown` with the hook's own token, beside the DaemonSet and pods that nobody runs."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.where = f"--namespace={namespace}"
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, deadline: int = 600) -> subprocess.Popen[str]:
        token = self.cluster.token(self.namespace, NAME)
        kubeconfig = self.cluster.kubeconfig(f"{self.namespace}-teardown", token=token)
        told = ("--namespace", self.namespace, "--kubeconfig", str(kubeconfig), "--progress-deadline", str(deadline))
        command = [sys.executable, "-m", "installer", "teardown", *told]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._processes.append(process)
        return process

    def add_pod(self, node: str, *, terminating: bool = False) -> None:
        """Create an agent's pod; terminating: it was deleted, and its kubelet does nothing about it."""
        metadata = {"name": f"agent-{node}", "labels": {"k8s-app": "istio-cni-node"}, "namespace": self.namespace}
        spec = {"nodeName": node, "containers": [{"name": "install-cni", "image": "none"}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        self.cluster.admin.apply(pod)
        if terminating:
            self.tell(node)

    def tell(self, node: str) -> None:
        """Delete a pod as the garbage collector does."""
        self.cluster.kubectl("delete", "pod", f"agent-{node}", self.where, "--wait=false")

    def end(self, node: str) -> None:
        """Have a pod be gone, as its kubelet does."""
        self.cluster.kubectl("delete", "pod", f"agent-{node}", self.where, "--force", "--grace-period=0")

    def daemonset(self) -> dict[str, Any]:
        return self.cluster.admin.read(f"/apis/apps/v1/namespaces/{self.namespace}/daemonsets/istio-cni-node")

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
        self.cluster.kubectl("delete", "pods", "--all", self.where, "--force", "--grace-period=0")
        if self.daemonset():
            patch = '--patch={"metadata": {"finalizers": null}}'
            self.cluster.kubectl("patch", "daemonset", "istio-cni-node", self.where, "--type=merge", patch)


@pytest.fixture
def teardown(cluster: Cluster, release: Release, hook: object, render: Render) -> Iterator[Teardown]:
    made = Teardown(cluster, release.namespace)
    daemonset = render(None, f"--namespace={release.namespace}")["DaemonSet"]
    cluster.kubectl("apply", "--filename=-", text=json.dumps(daemonset))
    yield made
    made.close()


def test_hook_account_has_only_the_rights_that_it_needs(cluster: Cluster, release: Release, hook: object) -> None:
    cluster.service_account(release.namespace, "anybody")
    for where in (release.namespace, "default"):
        own = rights(cluster, release.namespace, NAME, where) - rights(cluster, release.namespace, "anybody", where)
        expected = {
            ("get", "daemonsets.apps.istio-cni-node"), ("delete", "daemonsets.apps.istio-cni-node"), ("list", "pods"),
        }  # fmt: skip
        assert own == (expected if where == release.namespace else set())


def test_restricted_pod_security_admits_the_hook_pod(cluster: Cluster, release: Release, hook: dict[str, Any]) -> None:
    cluster.kubectl("label", "namespace", release.namespace, "pod-security.kubernetes.io/enforce=restricted")
    template = hook["Job"]["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": template["metadata"] | {"name": "a-pod"},
        "spec": template["spec"],
    }
    cluster.kubectl(
        "create", "--dry-run=server", f"--namespace={release.namespace}", "--filename=-", text=json.dumps(pod)
    )


def test_hook_runs_before_deletion_and_is_deleted_afterwards(render: Render) -> None:
    hooks = render().hooks
    for each in hooks:
        annotations = each["metadata"]["annotations"]
        assert annotations["helm.sh/hook"] == "pre-delete"
        assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    weights = {each["kind"]: int(each["metadata"]["annotations"]["helm.sh/hook-weight"]) for each in hooks}
    assert weights.pop("Job") > max(weights.values())
    (job,) = [each for each in hooks if each["kind"] == "Job"]
    keys = {each["key"] for each in job["spec"]["template"]["spec"]["tolerations"]}
    assert "cni.istio.io/not-ready" in keys, "every node may have the startup taint"
    assert all("key" in each for each in job["spec"]["template"]["spec"]["tolerations"]), (
        "not those of nodes that are down"
    )


def test_hook_schedules_like_the_controller(render: Render) -> None:
    taint = {"key": "team", "operator": "Exists"}
    rendered = render({"cni": {"controller": {"nodeSelector": {"pool": "system"}, "tolerations": [taint]}}})
    (job,) = [each for each in rendered.hooks if each["kind"] == "Job"]
    spec = job["spec"]["template"]["spec"]
    for field in ("nodeSelector", "tolerations", "priorityClassName", "securityContext"):
        assert spec[field] == rendered.controller[field]


def test_hook_can_be_disabled(render: Render) -> None:
    assert render({"cni": {"preDeleteHook": {"enabled": False}}}).hooks == []


def test_hook_deletes_the_daemonset_and_waits_for_its_pods(teardown: Teardown) -> None:
    teardown.add_pod("a")
    teardown.add_pod("b")
    process = teardown.start()
    until(lambda: teardown.daemonset()["metadata"].get("deletionTimestamp"), SOON, "the DaemonSet is being deleted")
    assert teardown.daemonset()["metadata"]["finalizers"] == ["foregroundDeletion"]
    teardown.end("a")
    assert process.stdout
    said = [process.stdout.readline() for _ in range(3)]
    assert said[1:] == [
        "waiting for 2 agents to remove the plugin and exit\n",
        "waiting for 1 agent to remove the plugin and exit\n",
    ]
    assert process.poll() is None
    teardown.end("b")
    assert process.communicate(timeout=SOON)[0] == "all agents have ended\n"
    assert process.returncode == 0


def test_hook_skips_and_names_nodes_that_are_down(teardown: Teardown) -> None:
    teardown.add_pod("up")
    teardown.add_pod("down", terminating=True)
    process = teardown.start(deadline=5)
    until(lambda: teardown.daemonset()["metadata"].get("deletionTimestamp"), SOON, "the DaemonSet is being deleted")
    teardown.end("up")
    said, _ = process.communicate(timeout=SOON)
    assert "continuing without 1 agent whose nodes do not answer: down." in said
    assert process.returncode == 0


def test_hook_fails_if_no_pod_is_being_terminated(teardown: Teardown) -> None:
    teardown.add_pod("a")
    process = teardown.start(deadline=3)
    said, _ = process.communicate(timeout=SOON)
    assert "agents were not told to exit (1 of 1)" in said
    assert "--no-hooks" in said
    assert process.returncode == 1


def test_hook_waits_for_pods_of_a_deleted_daemonset(teardown: Teardown) -> None:
    teardown.cluster.kubectl(
        "delete", "daemonset", "istio-cni-node", teardown.where, "--cascade=orphan", "--wait=false"
    )
    patch = '--patch={"metadata": {"finalizers": null}}'
    if teardown.daemonset():
        teardown.cluster.kubectl("patch", "daemonset", "istio-cni-node", teardown.where, "--type=merge", patch)
    teardown.add_pod("a", terminating=True)
    process = teardown.start()
    assert process.stdout
    assert "does not exist" in process.stdout.readline()
    assert "waiting for 1 agent" in process.stdout.readline()
    teardown.end("a")
    process.communicate(timeout=SOON)
    assert process.returncode == 0


def test_hook_fails_without_the_right_to_delete(teardown: Teardown) -> None:
    teardown.cluster.kubectl("delete", "rolebinding", NAME, teardown.where)
    process = teardown.start(deadline=3)
    said, _ = process.communicate(timeout=SOON)
    assert "answered 403" in said
    assert process.returncode == 1
    assert "deletionTimestamp" not in teardown.daemonset()["metadata"]


def test_the_hook_waits_as_long_as_something_changes() -> None:
    one, other = AgentPod("a", "1", is_terminating=False), AgentPod("b", "2", is_terminating=True)
    progress = Progress(10, now=0)
    assert not progress.stalled([one, other], 9)
    assert not progress.stalled([other, one], 18)
    assert not progress.stalled([one._replace(is_terminating=True), other], 18.5)
    assert not progress.stalled([other], 28)
    assert progress.stalled([other], 38)
