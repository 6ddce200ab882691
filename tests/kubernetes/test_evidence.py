"""A pod that the API server does not vouch for: refusals are no outage, and a pod is never taken for an earlier one (D9)."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from installer.config.control_plane import GROUP, PLURAL
from installer.kube.api_error import ApiError
from installer.kube.client import ApiClient
from tests.kubernetes.conftest import NAMESPACE, SOON
from tests.kubernetes.proxy import Proxy
from tests.plugin.conftest import rules
from tests.support.agent import AgentProcess
from tests.support.netns import Netns
from tests.support.wait import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.kubernetes.conftest import Node
    from tests.support.cluster import Cluster

STATUS = {"sidecar.istio.io/status": "{}"}
PRIMARY = '{"cniVersion": "1.0.0", "name": "k8s", "plugins": [{"type": "bridge"}]}'

pytestmark = [pytest.mark.apiserver, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


@pytest.fixture
def netns(tmp_path: Path) -> Iterator[Netns]:
    with Netns(tmp_path / "netns") as made:
        yield made


def predecessor(cluster: Cluster, node: Node, name: str) -> None:
    """Create a pod that was never injected."""
    spec = {"nodeName": node.name, "containers": [{"name": "app", "image": "none"}]}
    cluster.core.create_namespaced_pod("default", {"metadata": {"name": name}, "spec": spec})  # type: ignore[arg-type]


def reads_settings(cluster: Cluster, account: str) -> None:
    """Let an account list the IstioControlPlanes, without which an agent is not ready."""
    group, named = "rbac.authorization.k8s.io", {"metadata": {"name": f"{account}-settings"}}
    rule = {"apiGroups": [GROUP], "resources": [PLURAL], "verbs": ["list", "watch"]}
    role = {"apiVersion": f"{group}/v1", "kind": "ClusterRole", **named, "rules": [rule]}
    bound = {"apiGroup": group, "kind": "ClusterRole", **named["metadata"]}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": "default"}
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        **named,
        "roleRef": bound,
        "subjects": [subject],
    }
    cluster.kubectl(
        "create", "--filename=-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": [role, binding]})
    )


@asynccontextmanager
async def refused(tmp_path: Path, cluster: Cluster, node: Node, how: str) -> AsyncIterator[AgentProcess]:
    """An agent that has heard of the pods and is refused since, with its watch cut."""
    account = f"refused-{how}"
    cluster.service_account("default", account, verbs="get,list,watch", resource="pods")
    reads_settings(cluster, account)
    (tmp_path / "conf").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "conf" / "10-k8s.conflist").write_text(PRIMARY)
    async with Proxy(cluster.port) as proxy:
        config = cluster.kubeconfig(account, token=cluster.token("default", account), port=proxy.port)
        options: dict[str, str | Path] = {"node-name": node.name, "kubeconfig": config, "log-level": "warn"}
        with AgentProcess(tmp_path, conf_dir=tmp_path / "conf", bin_dir=tmp_path / "bin", options=options) as agent:
            await asyncio.to_thread(agent.ready)
            if how == "403":
                cluster.kubectl("delete", "clusterrolebinding", f"default:{account}")
            else:
                cluster.kubectl("delete", "serviceaccount", account, "--namespace=default")

            async def is_refused() -> bool:
                api = ApiClient(config)
                try:
                    await api.get("/api/v1/pods", {"limit": "1"})
                except ApiError as error:
                    return error.status == int(how)
                finally:
                    await api.close()
                return False

            for _ in range(600):
                if await is_refused():
                    break
                await asyncio.sleep(0.1)
            proxy.cut()
            yield agent


@pytest.mark.parametrize("how", ["401", "403"])
async def test_a_refused_agent_never_takes_a_pod_for_an_earlier_one(
    tmp_path: Path, cluster: Cluster, node: Node, netns: Netns, how: str
) -> None:
    name = f"db-{node.name}"
    predecessor(cluster, node, name)
    node.started(name)
    async with refused(tmp_path, cluster, node, how) as agent:
        node.end_pod(name)
        uid = node.start_pod(name)
        # Without a uid; without annotations as well; with both, and the uid is another one's.
        for given, annotations in (("", STATUS), ("", None), (uid, STATUS)):
            answer = await agent.add(netns, "default", name, given, annotations)
            assert (answer.status, answer.json["code"]) == (1, 11), answer.stdout
            assert f"answered {how}" in answer.json["msg"]
        assert rules(netns) == ""


async def test_in_an_outage_a_pod_without_a_uid_is_identified_by_the_runtime(
    tmp_path: Path, cluster: Cluster, node: Node, netns: Netns, kubeconfig: Path
) -> None:
    plain, meshed = f"plain-{node.name}", f"meshed-{node.name}"
    predecessor(cluster, node, plain)
    node.started(plain)
    node.start_pod(meshed)
    (tmp_path / "conf").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "conf" / "10-k8s.conflist").write_text(PRIMARY)
    options: dict[str, str | Path] = {"node-name": node.name, "kubeconfig": kubeconfig}
    with AgentProcess(tmp_path, conf_dir=tmp_path / "conf", bin_dir=tmp_path / "bin", options=options) as agent:
        await asyncio.to_thread(agent.ready)
        cluster.kill_apiserver()
        try:
            other = await agent.add(netns, "default", plain, "", STATUS)
            unsaid = await agent.add(netns, "default", plain)
            never = await agent.add(netns, "default", plain, "", {})
            before = rules(netns)
            again = await agent.add(netns, "default", meshed, "", STATUS)
        finally:
            cluster.start_apiserver()
        for each in (other, unsaid):
            assert (each.status, each.json["code"]) == (1, 11), each.stdout
        assert never.status == 0, never.stdout
        assert before == ""
        assert again.status == 0, again.stdout
        assert "15006" in rules(netns)


async def test_a_pod_that_only_the_runtime_knows_as_injected_is_redirected_and_logged(
    tmp_path: Path, cluster: Cluster, node: Node, netns: Netns, kubeconfig: Path
) -> None:
    name = f"edited-{node.name}"
    uid = node.start_pod(name)
    (tmp_path / "conf").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "conf" / "10-k8s.conflist").write_text(PRIMARY)
    options: dict[str, str | Path] = {"node-name": node.name, "kubeconfig": kubeconfig, "log-level": "warn"}
    with AgentProcess(tmp_path, conf_dir=tmp_path / "conf", bin_dir=tmp_path / "bin", options=options) as agent:
        await asyncio.to_thread(agent.ready)
        cluster.kubectl("annotate", "pod", name, "sidecar.istio.io/status-")
        for _ in range(3):
            answer = await agent.add(netns, "default", name, uid, STATUS)
            assert answer.status == 0, answer.stdout
        assert "15006" in rules(netns)
        told = [line for line in agent.log.read_text().splitlines() if "other annotations" in line]
        assert len(told) == 1, told
        assert '"level": "warn"' in told[0]
        await eventually(
            lambda: "istio_cni_annotation_mismatches_total 3.0" in agent.get("/metrics")[1], SOON, "counted"
        )


@pytest.mark.parametrize(
    ("status", "is_outage"),
    [(401, False), (403, False), (400, False), (404, False), (429, True), (500, True), (503, True)],
)
async def test_refusals_are_no_outage(tmp_path: Path, status: int, *, is_outage: bool) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text="default backend")

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    config = tmp_path / "config"
    config.write_text(
        f'{{"current-context": "a", "contexts": [{{"name": "a", "context": {{"cluster": "a", "user": "a"}}}}], "users": '
        f'[{{"name": "a", "user": {{}}}}], "clusters": [{{"name": "a", "cluster": {{"server": '
        f'"http://127.0.0.1:{runner.addresses[0][1]}"}}}}]}}'
    )
    api = ApiClient(config)
    try:
        with pytest.raises(ApiError) as error:
            await api.create("/", {})
        assert (error.value.status, error.value.is_outage) == (status, is_outage)
        await runner.cleanup()
        with pytest.raises(ApiError) as error:
            await api.create("/", {})
        assert error.value.is_outage
    finally:
        await api.close()


@pytest.mark.usefixtures("kubeconfig")
async def test_without_a_uid_a_pod_is_never_decided_by_an_earlier_one(
    tmp_path: Path, cluster: Cluster, node: Node, netns: Netns
) -> None:
    """As after a failover of a load balancer: all connections are silent, and the new pod's sidecar runs as another user."""
    name = f"db-{node.name}"
    (tmp_path / "conf").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "conf" / "10-k8s.conflist").write_text(PRIMARY)
    async with Proxy(cluster.port) as proxy:
        config = cluster.kubeconfig("silent", token=cluster.token(NAMESPACE, "istio-cni"), port=proxy.port)
        options: dict[str, str | Path] = {"node-name": node.name, "kubeconfig": config, "log-level": "warn"}
        with AgentProcess(tmp_path, conf_dir=tmp_path / "conf", bin_dir=tmp_path / "bin", options=options) as agent:
            await asyncio.to_thread(agent.ready)
            node.start_pod(name)
            answer = await agent.add(netns, "default", name, "", STATUS)
            assert answer.status == 0, answer.stdout
            assert "skuid 1337" in rules(netns)
            proxy.freeze()
            node.end_pod(name)
            containers = [{"name": "app", "image": "none"}, sidecar(2000)]
            node.start_pod(name, spec={"containers": containers})
            answer = await agent.add(netns, "default", name, "", STATUS)
            assert answer.status == 0, answer.stdout
            assert "skuid 2000" in rules(netns)
            assert "skuid 1337" not in rules(netns)


def sidecar(uid: int) -> dict[str, object]:
    """A sidecar that runs as a user."""
    return {"name": "istio-proxy", "image": "none", "securityContext": {"runAsUser": uid, "runAsGroup": uid}}
