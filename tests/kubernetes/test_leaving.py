"""An agent that is told to stop takes out what it has installed if it is proven that none is to come after it (F36)."""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from installer.agent import shutdown
from installer.agent.shutdown import STOP_WITHIN, why_to_uninstall
from installer.agent.succession import Whose
from installer.config.value_types import DaemonSet
from installer.kube.client import ApiClient
from installer.kube.credentials import credentials
from tests.kubernetes.conftest import ACCOUNT, DAEMONSET, NAMESPACE, SOON, apply, entry, report, untouched
from tests.kubernetes.front import Front, Said
from tests.support.keys import write_signing_key
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.kubernetes.conftest import Node
    from tests.support.agent import AgentProcess
    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver

WITHIN = 20.0  # seconds that an agent asks, at its end

NAME = "istio-cni-node"
CANNOT_TELL = "cannot tell whether the DaemonSet still targets this node; leaving the plugin installed"
PARKED = {"kubernetes.io/os": "linux", "cni.istio.io/parked": "true"}
WHERE = ("daemonset", NAME, f"--namespace={NAMESPACE}")
OF_THE_DAEMONSET = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{NAME}"


def stopped(agent: AgentProcess) -> str:
    """End it as the kubelet does, and return its log."""
    assert agent.stop(within=STOP_WITHIN) == 0
    return agent.log.read_text()


def stays(agent: AgentProcess, log: str) -> str:
    """See that all is in place and that the log says why; return the reason."""
    assert entry(agent), log
    assert (agent.bin_dir / "istio-cni").exists(), log
    (line,) = [json.loads(each) for each in log.splitlines() if CANNOT_TELL in each]
    return str(line["reason"])


def select(cluster: Cluster, selector: dict[str, str]) -> None:
    """Have the DaemonSet select these nodes and no others."""
    cluster.admin.edit(
        OF_THE_DAEMONSET, {"op": "replace", "path": "/spec/template/spec/nodeSelector", "value": selector}
    )


def require(cluster: Cluster, *expressions: dict[str, Any]) -> None:
    """Have the DaemonSet require these of nodes; or nothing, as `apply` leaves what it has not written."""
    terms = {"nodeSelectorTerms": [{"matchExpressions": list(expressions)}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}} if expressions else {}
    cluster.admin.edit(OF_THE_DAEMONSET, {"op": "add", "path": "/spec/template/spec/affinity", "value": affinity})


def as_pod(cluster: Cluster, node: Node, agent: AgentProcess) -> None:
    """Start the agent anew as one that knows which pod it runs in."""
    assert agent.stop() == 0
    agent.set("pod-uid", node.start_pod("agent", namespace=NAMESPACE))
    agent.start()
    agent.ready()
    until(lambda: "istio_cni_pods 1.0" in agent.get("/metrics")[1], SOON, "its pod is known")


@contextmanager
def other_key(cluster: Cluster) -> Iterator[None]:
    """Rotate the key by which the API server knows the tokens that it has issued; none of before is good."""
    key, before = cluster.folder / "service-account.key", cluster.folder / "before.key"
    cluster.kill_apiserver()
    key.rename(before)
    write_signing_key(key)
    cluster.start_apiserver()
    try:
        yield
    finally:
        cluster.kill_apiserver()
        before.replace(key)
        cluster.start_apiserver()


@contextmanager
def unbound(cluster: Cluster) -> Iterator[None]:
    """Take the agents' rights away."""
    cluster.kubectl("delete", "clusterrolebinding", NAME)
    try:
        yield
    finally:
        cluster.kubectl("create", "clusterrolebinding", NAME, f"--clusterrole={NAME}", f"--user={ACCOUNT}")


def test_sigterm_keeps_the_plugin(running: AgentProcess) -> None:
    log = stopped(running)
    assert entry(running)
    assert (running.bin_dir / "istio-cni").exists()
    assert CANNOT_TELL not in log


def test_a_refused_token_keeps_the_plugin(cluster: Cluster, running: AgentProcess) -> None:
    with other_key(cluster):
        log = stopped(running)
    assert "answered 401" in stays(running, log)


def test_missing_rights_keep_the_plugin_and_the_log_has_the_cleaning_command(
    cluster: Cluster, node: Node, running: AgentProcess
) -> None:
    with unbound(cluster):
        log = stopped(running)
    assert "answered 403" in stays(running, log)
    (remedy,) = [json.loads(line)["remedy"] for line in log.splitlines() if CANNOT_TELL in line]
    said, _, command = remedy.partition(": ")
    assert "with the agent's image as IMAGE" in said
    words = shlex.split(command)
    start = words.index("install-cni")
    assert words[:start] == ["kubectl", "debug", f"node/{node.name}", "--profile=general", "--image=IMAGE", "--"]
    assert "--root=/host" in words[start:]
    arguments = [each for each in words[start + 1 :] if each != "--root=/host"]
    done = subprocess.run([sys.executable, "-m", "installer", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert untouched(running), done.stdout


def test_a_load_balancers_404_keeps_the_plugin(
    cluster: Cluster, kubeconfig: Path, running: AgentProcess, tmp_path: Path
) -> None:
    async def with_a_load_balancer() -> str:
        info = credentials(kubeconfig)
        async with Front(info.server, info.as_ssl_context()) as front:
            assert running.stop() == 0
            running.set("kubeconfig", front.kubeconfig(kubeconfig, tmp_path / "front.kubeconfig"))
            running.start()
            await asyncio.to_thread(running.ready)
            front.instead = lambda _: Said(404, "404 default backend", "text/plain")
            return await asyncio.to_thread(stopped, running)

    reason = stays(running, asyncio.run(with_a_load_balancer()))
    assert "answered 404: default backend" in reason or "404 default backend" in reason


def test_an_api_server_that_does_not_answer_keeps_the_plugin(cluster: Cluster, running: AgentProcess) -> None:
    cluster.kill_apiserver()
    try:
        log = stopped(running)
    finally:
        cluster.start_apiserver()
    stays(running, log)


def test_a_force_deleted_pod_keeps_the_plugin(cluster: Cluster, node: Node, running: AgentProcess) -> None:
    """Its token is refused then; what it has installed is needed (F7)."""
    as_pod(cluster, node, running)
    node.end_pod("agent", namespace=NAMESPACE)
    until(lambda: "istio_cni_pods 0.0" in running.get("/metrics")[1], SOON, "its pod is known to be gone")
    with unbound(cluster):
        log = stopped(running)
    stays(running, log)


def test_an_api_server_that_lost_pod_and_daemonset_keeps_the_plugin(
    cluster: Cluster, node: Node, running: AgentProcess
) -> None:
    """As one does behind the same address whose etcd is empty, or restored from before."""
    as_pod(cluster, node, running)
    node.end_pod("agent", namespace=NAMESPACE)
    cluster.kubectl("delete", *WHERE)
    assert "knows no pod" in stays(running, stopped(running))


def test_an_api_server_that_lost_node_and_daemonset_keeps_the_plugin(
    cluster: Cluster, node: Node, running: AgentProcess
) -> None:
    cluster.kubectl("delete", "node", node.name)
    cluster.kubectl("delete", *WHERE)
    assert f"knows no Node {node.name}" in stays(running, stopped(running))


def test_a_recreated_daemonset_keeps_the_plugin(cluster: Cluster, node: Node, running: AgentProcess) -> None:
    cluster.kubectl("delete", *WHERE)
    apply(cluster, DAEMONSET)
    log = stopped(running)
    assert entry(running), log


def test_a_deleted_daemonset_removes_the_plugin(cluster: Cluster, node: Node, running: AgentProcess) -> None:
    as_pod(cluster, node, running)
    cluster.kubectl("delete", *WHERE)
    log = stopped(running)
    assert untouched(running), log
    assert not running.socket.parent.exists()
    assert report(cluster, node)["state"] == "Removed"


def test_a_terminating_daemonset_removes_the_plugin(cluster: Cluster, node: Node, running: AgentProcess) -> None:
    cluster.kubectl("delete", *WHERE, "--cascade=foreground", "--wait=false")
    assert "deletionTimestamp" in cluster.kubectl("get", *WHERE, "--output=yaml"), "nobody collects garbage here"
    try:
        log = stopped(running)
    finally:
        cluster.kubectl("patch", *WHERE, "--type=merge", '--patch={"metadata": {"finalizers": null}}')
    assert untouched(running), log
    assert "is being deleted" in log
    assert report(cluster, node)["state"] == "Removed"


def test_a_daemonset_that_does_not_select_the_node_removes_the_plugin(cluster: Cluster, running: AgentProcess) -> None:
    select(cluster, {"kubernetes.io/os": "linux", "pool": "b"})
    log = stopped(running)
    assert untouched(running), log
    assert "pool=b" in log


def test_a_daemonset_whose_affinity_excludes_the_node_removes_the_plugin(
    cluster: Cluster, running: AgentProcess
) -> None:
    require(cluster, {"key": "pool", "operator": "In", "values": ["b"]})
    log = stopped(running)
    require(cluster)
    assert untouched(running), log
    assert "by its node affinity" in log


def test_a_parked_daemonset_removes_the_plugin(cluster: Cluster, running: AgentProcess) -> None:
    select(cluster, PARKED)
    log = stopped(running)
    assert untouched(running), log
    assert "its IstioControlPlane was deleted" in log


def status(**given: Any) -> str:
    """Write the API server's own answer that the DaemonSet is not there, but for what is given."""
    details = {"name": NAME, "group": "apps", "kind": "daemonsets"}
    said = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "reason": "NotFound",
        "code": 404,
    }
    return json.dumps(said | {"details": details, "message": f'daemonsets.apps "{NAME}" not found'} | given)


def daemonset(**metadata: Any) -> dict[str, Any]:
    return DAEMONSET | {"metadata": {"name": NAME, "namespace": NAMESPACE, "uid": "a-uid"} | metadata}


GOING = {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["foregroundDeletion"]}
OTHER_NAME = {"name": "istio-cni", "group": "apps", "kind": "daemonsets"}
NEAR = {"matchExpressions": [{"key": "pool", "operator": "Near", "values": ["b"]}]}
OF_A_LATER_RELEASE = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [NEAR]}}}
DOUBTFUL = {
    "plain text": Said(404, "404 default backend", "text/plain"),
    "the API server's own for a path that it does not serve": Said(404, "404 page not found\n", "text/plain"),
    "HTML": Said(404, "<html><title>404 Not Found</title></html>", "text/html"),
    "JSON of something else": Said(404, '{"error": "not found"}'),
    "not an object": Said(404, '"not found"'),
    "nothing": Said(404, ""),
    "a Status without details": Said(404, status(details=None)),
    "a Status about another name": Said(404, status(details=OTHER_NAME)),
    "a Status about another kind": Said(404, status(details=OTHER_NAME | {"name": NAME, "kind": "deployments"})),
    "a Status about another group": Said(404, status(details=OTHER_NAME | {"name": NAME, "group": "extensions"})),
    "a Status about the namespace": Said(404, status(details={"name": NAMESPACE, "kind": "namespaces"})),
    "a Status of another reason": Said(404, status(reason="Expired")),
    "a Status in text": Said(404, status(), "text/plain"),
    "a Status cut short": Said(404, status()[:-20]),
    "a Status with another code": Said(410, status()),
    "a Status as if all were well": Said(200, status()),
    "gone": Said(410, "gone", "text/plain"),
    "not logged in": Said(401, "Unauthorized", "text/plain"),
    "forbidden": Said(403, status(reason="Forbidden", code=403)),
    "too many requests": Said(429, status(reason="TooManyRequests", code=429)),
    "an error": Said(500, "internal error", "text/plain"),
    "no upstream": Said(503, "<html>no upstream</html>", "text/html"),
    "a redirect": Said(302, "", "text/html", (("Location", "/login"),)),
    "a login page": Said(200, "<html>log in</html>", "text/html"),
    "an empty object": Said(200, "{}"),
    "null": Said(200, "null"),
    "a list": Said(200, json.dumps({"kind": "DaemonSetList", "apiVersion": "apps/v1", "items": []})),
    "another DaemonSet, going": Said(200, json.dumps(daemonset(name="istio-cni", **GOING))),
    "one of another namespace, going": Said(200, json.dumps(daemonset(namespace="default", **GOING))),
    "a Deployment, going": Said(200, json.dumps(daemonset(**GOING) | {"kind": "Deployment"})),
    "a deletionTimestamp that is none": Said(200, json.dumps(daemonset(deletionTimestamp=True))),
    "no metadata": Said(200, json.dumps(DAEMONSET | {"metadata": None})),
    "a DaemonSet without a template": Said(200, json.dumps(daemonset() | {"spec": {}})),
    "a selector that is none": Said(
        200, json.dumps(daemonset() | {"spec": {"template": {"spec": {"nodeSelector": ["a"]}}}})
    ),
    "an affinity that is none": Said(
        200, json.dumps(daemonset() | {"spec": {"template": {"spec": {"affinity": "a"}}}})
    ),
    "an affinity of a later release": Said(
        200, json.dumps(daemonset() | {"spec": {"template": {"spec": {"affinity": OF_A_LATER_RELEASE}}}})
    ),
    "cut short": Said(200, json.dumps(daemonset(**GOING))[:-30]),
}


@dataclass
class Asking:
    """An agent's pod on a node of its own, with the DaemonSet, whose questions go through a front."""

    cluster: Cluster
    node: Node
    kubeconfig: Path
    folder: Path

    async def __call__(
        self,
        instead: Callable[[str], Said | None] = lambda _: None,
        uid: str = "",
        *,
        by_rights: bool = False,
        name: str = "",
        beside_istios: bool = False,
    ) -> str:
        """Ask whether all is to be taken out, and return why; empty: it is not. `uid` and `name` are those of its pod."""
        loop, info = asyncio.get_running_loop(), credentials(self.kubeconfig)
        async with Front(info.server, info.as_ssl_context()) as front:
            front.instead = instead
            api = ApiClient(front.kubeconfig(self.kubeconfig, self.folder / "front.kubeconfig"))
            try:
                whose = Whose(DaemonSet(NAMESPACE, NAME), self.node.name, uid, by_rights, name)
                until = loop.time() + WITHIN
                return await why_to_uninstall(api, whose, until, beside_istios=beside_istios)
            finally:
                await api.close()


@pytest.fixture
def asked(cluster: Cluster, node: Node, kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asking:
    monkeypatch.setattr(shutdown, "BETWEEN", 0.02)
    apply(cluster, DAEMONSET)
    require(cluster)
    labels = {"kubernetes.io/os": "linux", "pool": "a"}
    apply(cluster, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name, "labels": labels}})
    return Asking(cluster, node, kubeconfig, tmp_path)


async def test_the_api_servers_own_answers_are_proof(asked: Asking) -> None:
    assert await asked() == ""
    said = {OF_THE_DAEMONSET: Said(404, status())}
    assert "is gone" in await asked(said.get)
    said = {OF_THE_DAEMONSET: Said(200, json.dumps(daemonset(**GOING)))}
    assert "is being deleted" in await asked(said.get)
    uid = asked.node.start_pod("agent", namespace=NAMESPACE)
    assert "is being deleted" in await asked(said.get, uid)


@pytest.mark.parametrize("what", DOUBTFUL)
async def test_other_answers_about_the_daemonset_are_no_proof(
    asked: Asking, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    assert await asked({OF_THE_DAEMONSET: DOUBTFUL[what]}.get) == ""
    assert caplog.messages == [CANNOT_TELL]


async def test_labels_prove_that_no_agent_follows_and_taints_do_not(asked: Asking) -> None:
    pool_a = {"key": "pool", "operator": "In", "values": ["a"]}
    require(asked.cluster, pool_a)
    assert await asked() == ""
    taints = [{"key": "maintenance", "effect": effect} for effect in ("NoSchedule", "NoExecute")]
    patch = json.dumps({"spec": {"taints": taints}})
    asked.cluster.kubectl("patch", "node", asked.node.name, "--type=merge", f"--patch={patch}")
    assert await asked() == ""
    asked.cluster.kubectl("label", "node", asked.node.name, "pool=b", "--overwrite")
    assert "by its node affinity" in await asked()
    require(asked.cluster, pool_a | {"operator": "NotIn"})
    assert await asked() == ""


NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "?", "labels": {"kubernetes.io/os": "linux", "pool": "b"}},
}
DOUBTFUL_NODES: dict[str, Callable[[str], Said]] = {
    "not registered": lambda name: Said(404, status(details={"name": name, "kind": "nodes"})),
    "plain text": lambda _: Said(404, "404 default backend", "text/plain"),
    "forbidden": lambda _: Said(403, "forbidden", "text/plain"),
    "another Node": lambda _: Said(200, json.dumps(NODE)),
    "no labels": lambda name: Said(200, json.dumps(NODE | {"metadata": {"name": name}})),
    "labels that are none": lambda name: Said(200, json.dumps(NODE | {"metadata": {"name": name, "labels": []}})),
    "not a Node": lambda name: Said(200, json.dumps({"kind": "Pod", "metadata": {"name": name, "labels": {"a": "b"}}})),
    "an empty object": lambda _: Said(200, "{}"),
    "HTML": lambda _: Said(200, "<html></html>", "text/html"),
}


@pytest.mark.parametrize("what", DOUBTFUL_NODES)
async def test_other_answers_about_the_node_are_no_proof_that_it_is_not_selected(
    asked: Asking, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    select(asked.cluster, {"pool": "b"})
    assert "pool=b" in await asked()
    said = {f"/api/v1/nodes/{asked.node.name}": DOUBTFUL_NODES[what](asked.node.name)}
    assert await asked(said.get) == ""
    assert caplog.messages == [CANNOT_TELL]


PODS: dict[str, Said] = {
    "none": Said(200, json.dumps({"kind": "PodList", "apiVersion": "v1", "items": []})),
    "null": Said(200, json.dumps({"kind": "PodList", "apiVersion": "v1", "items": None})),
    "others": Said(200, json.dumps({"kind": "PodList", "apiVersion": "v1", "items": [{"metadata": {"uid": "other"}}]})),
    "not a list": Said(200, "{}"),
    "not objects": Said(200, json.dumps({"kind": "PodList", "apiVersion": "v1", "items": ["a", {"metadata": None}]})),
    "forbidden": Said(403, "forbidden", "text/plain"),
}


@pytest.mark.parametrize("what", PODS)
async def test_an_api_server_that_does_not_know_the_agents_pod_proves_nothing(
    asked: Asking, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    uid = asked.node.start_pod("agent", namespace=NAMESPACE)
    asked.cluster.kubectl("delete", *WHERE)
    assert "is gone" in await asked(uid=uid)
    said = {f"/api/v1/namespaces/{NAMESPACE}/pods": PODS[what]}
    assert await asked(said.get, uid) == ""
    assert caplog.messages == [CANNOT_TELL]


def own_and_next(asked: Asking, by_name: str = NAME) -> str:
    """Have the agent's pod terminate, and another DaemonSet of this name have a pod beside it; return the first one's uid."""
    owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": by_name, "uid": "another"}
    uid = asked.node.start_pod("agent", namespace=NAMESPACE, owner=owner | {"name": NAME, "uid": "one"})
    asked.node.start_pod("next", namespace=NAMESPACE, owner=owner)
    asked.cluster.core.delete_namespaced_pod("agent", NAMESPACE, grace_period_seconds=30)
    return uid


async def test_istios_agent_beside_and_the_pod_that_stays_are_proof_together(asked: Asking) -> None:
    uid = own_and_next(asked)
    assert await asked(uid=uid) == "", "an agent of this kind may follow"
    assert "kube-system/next has taken this one's place" in await asked(uid=uid, beside_istios=True)
    assert "kube-system/next has taken this one's place" in await asked(
        name="agent", by_rights=True, beside_istios=True
    )
    assert await asked(name="agent", by_rights=True) == ""
    assert await asked(beside_istios=True) == "", "which pod is its own is not known"
    asked.cluster.core.delete_namespaced_pod("next", NAMESPACE, grace_period_seconds=30)
    assert await asked(uid=uid, beside_istios=True) == "", "it goes, too"


async def test_a_pod_of_another_daemonset_is_no_proof(asked: Asking) -> None:
    assert await asked(uid=own_and_next(asked, "istio-cni"), beside_istios=True) == ""


NEXT = {"kind": "PodList", "apiVersion": "v1", "items": [{"metadata": {"uid": "one", "deletionTimestamp": "now"}}]}
DOUBTFUL_NEXT = PODS | {
    "no owners": Said(200, json.dumps(NEXT | {"items": [*NEXT["items"], {"metadata": {"ownerReferences": ["a"]}}]}))
}


@pytest.mark.parametrize("what", DOUBTFUL_NEXT)
async def test_other_answers_about_the_pods_are_no_proof_that_one_follows(
    asked: Asking, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    said = {f"/api/v1/namespaces/{NAMESPACE}/pods": DOUBTFUL_NEXT[what]}
    assert await asked(said.get, "one", beside_istios=True) == ""
    assert caplog.messages == [CANNOT_TELL]


async def test_a_missing_daemonset_must_be_reported_twice_in_a_row(asked: Asking) -> None:
    answers: list[Said | None] = [Said(404, status())]
    assert await asked(of_the_daemonset(answers)) == "", "it was there the second time"
    gone, broken = Said(404, status()), Said(503, "", "text/plain")
    assert await asked(of_the_daemonset([gone, broken, gone, broken])) == ""
    assert "is gone" in await asked(of_the_daemonset([broken, broken, gone, gone]))


def of_the_daemonset(answers: list[Said | None]) -> Callable[[str], Said | None]:
    """Answer questions for the DaemonSet by these, in order, before the API server does."""
    left = iter(answers)
    return lambda path: next(left, None) if path == OF_THE_DAEMONSET else None


def forbidden(node: Node) -> Said:
    """Write the API server's own answer that the agent may no longer read its Node."""
    return Said(403, status(reason="Forbidden", code=403, details={"name": node.name, "kind": "nodes"}))


async def test_in_istios_chart_a_lasting_refusal_of_its_rights_is_proof(asked: Asking) -> None:
    path, refused = f"/api/v1/nodes/{asked.node.name}", forbidden(asked.node)
    assert await asked(by_rights=True) == ""
    assert "the chart is uninstalled" in await asked({path: refused}.get, by_rights=True)
    answers = iter([refused] * (shutdown.TRIES - 1))
    assert await asked(lambda _: next(answers, None), by_rights=True) == "", "as of an API server that has just started"


@pytest.mark.parametrize("what", DOUBTFUL)
async def test_in_istios_chart_no_other_answer_is_proof(asked: Asking, what: str) -> None:
    assert await asked({f"/api/v1/nodes/{asked.node.name}": DOUBTFUL[what]}.get, by_rights=True) == ""
