"""The agent knows this node's pods, through all that happens to its watch, and writes on none of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest

from installer.kube.client import PATIENCE
from plugin.pod import PodsUnavailable
from tests.kubernetes.conftest import ACCOUNT, NAMESPACE, SOON, Agent, Node
from tests.kubernetes.proxy import Proxy
from tests.support.wait import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from installer.pods.cluster import NodePods
    from tests.support.cluster import Cluster

MODE = "sidecar.istio.io/interceptionMode"

# kopf 1.45 leaves the connection of a cancelled watch to the garbage collector, which python then warns about.
pytestmark = [
    pytest.mark.apiserver,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def heard(pods: NodePods, name: str) -> Any:
    """What the agent knows of a pod without asking."""
    return pods.cached("default", name, None)


def mode(pods: NodePods, name: str) -> Callable[[], str | None]:
    """What the agent knows of a pod's annotation without asking."""
    return lambda: (pod := heard(pods, name)) and pod.annotations.get(MODE)


def requests(cluster: Cluster, node: Node, verb: str) -> list[dict[str, Any]]:
    """The requests of agents for the pods of a node."""
    return [
        entry
        for entry in cluster.requests_of(ACCOUNT)
        if entry["verb"] == verb and f"spec.nodeName={node.name}," in unquote(entry["requestURI"])
    ]


async def test_only_pods_of_this_node_are_known(node: Node, kubeconfig: Path, agent: Agent) -> None:
    uids = {name: node.start_pod(name) for name in ("own-1", "own-2")}
    node.start_pod("others", node="another-node")
    async with agent(node, kubeconfig) as pods:
        assert pods.count == 2
        assert {name: heard(pods, name).uid for name in uids} == uids
        assert heard(pods, "others") is None
        assert pods.reason == ""


async def test_a_node_without_pods_is_known_to_have_none(node: Node, kubeconfig: Path, agent: Agent) -> None:
    async with agent(node, kubeconfig) as pods:
        assert pods.count == 0
        node.start_pod("first")
        await eventually(lambda: pods.count == 1, SOON, "the first pod is heard of")


async def test_a_changed_annotation_and_a_deletion_are_observed(node: Node, kubeconfig: Path, agent: Agent) -> None:
    uid = node.start_pod("changing", {MODE: "REDIRECT"})
    async with agent(node, kubeconfig) as pods:
        assert mode(pods, "changing")() == "REDIRECT"
        node.annotate("changing", {MODE: "TPROXY"})
        await eventually(lambda: mode(pods, "changing")() == "TPROXY", SOON, "the annotation has changed")
        node.end_pod("changing")
        await eventually(lambda: pods.count == 0, SOON, "the pod is forgotten")
        assert await pods.find("default", "changing", uid) is None


async def test_one_list_and_one_watch_filtered_by_the_server(
    node: Node, kubeconfig: Path, agent: Agent, cluster: Cluster
) -> None:
    node.start_pod("watched")
    async with agent(node, kubeconfig) as pods:
        node.annotate("watched", {MODE: "NONE"})
        await eventually(lambda: mode(pods, "watched")() == "NONE", SOON, "the annotation has changed")
    assert len(requests(cluster, node, "watch")) == 1
    assert len(requests(cluster, node, "list")) == 2, "expected kopf's, and one to know that all was heard"


async def test_pods_are_only_read(node: Node, kubeconfig: Path, agent: Agent, cluster: Cluster) -> None:
    node.start_pod("untouched")
    before = node.pod("untouched").metadata
    done = len([*cluster.requests_of(ACCOUNT)])
    async with agent(node, kubeconfig) as pods:
        await pods.find("default", "untouched", None)
        await pods.find("default", "not-there", None)
        node.start_pod("after")
        await eventually(lambda: pods.count == 2, SOON, "the second pod is heard of")
    after = node.pod("untouched").metadata
    assert after == before, "saw the pod changed: resourceVersion, managedFields, annotations or finalizers"
    every = [*cluster.requests_of(ACCOUNT)][done:]
    assert {entry["verb"] for entry in every} == {"get", "list", "watch"}, "discovery is read too"
    asked = [entry for entry in every if "objectRef" in entry]
    assert {entry["verb"] for entry in asked} == {"get", "list", "watch"}
    assert {entry["objectRef"]["resource"] for entry in asked} == {"pods"}
    unfiltered = [
        e["requestURI"] for e in asked if e["verb"] != "get" and "fieldSelector=spec.nodeName" not in e["requestURI"]
    ]
    assert unfiltered == []


async def test_the_watch_goes_on_after_its_connection_was_cut(
    node: Node, kubeconfig: Path, agent: Agent, cluster: Cluster
) -> None:
    node.start_pod("through", {MODE: "REDIRECT"})
    async with Proxy(cluster.port) as proxy:
        through_proxy = cluster.kubeconfig("proxied", token=cluster.token(NAMESPACE, "istio-cni"), port=proxy.port)
        async with agent(node, through_proxy) as pods:
            await eventually(lambda: requests(cluster, node, "watch"), SOON, "the watch has begun")
            proxy.cut()
            node.annotate("through", {MODE: "TPROXY"})
            await eventually(lambda: mode(pods, "through")() == "TPROXY", SOON, "what changed after the cut")
            assert len(requests(cluster, node, "watch")) == 2
            assert pods.known


async def test_a_watch_whose_connection_is_silent_is_restarted(
    node: Node, kubeconfig: Path, agent: Agent, cluster: Cluster
) -> None:
    """As after a failover of a load balancer: no data, no end. The server's list then has what was not heard of."""
    async with Proxy(cluster.port) as proxy:
        through_proxy = cluster.kubeconfig("proxied", token=cluster.token(NAMESPACE, "istio-cni"), port=proxy.port)
        async with agent(node, through_proxy, list_every=0.5) as pods:
            await eventually(lambda: requests(cluster, node, "watch"), SOON, "the watch has begun")
            proxy.freeze()
            node.start_pod("unheard")
            within = PATIENCE + SOON  # one question may still wait for its answer
            await eventually(lambda: heard(pods, "unheard"), within, "the pod is heard of over another connection")


async def test_known_pods_survive_an_outage_and_later_changes_are_observed(
    node: Node, kubeconfig: Path, agent: Agent, cluster: Cluster
) -> None:
    uid = node.start_pod("known", {MODE: "REDIRECT"})
    async with agent(node, kubeconfig) as pods:
        cluster.kill_apiserver()
        try:
            found = await pods.find("default", "known", uid)
            assert found
            assert found.uid == uid
            assert await pods.find("default", "known", None) == found, (
                "without a uid what is known is better than nothing"
            )
            with pytest.raises(PodsUnavailable, match=rf"https://127.0.0.1:{cluster.port} failed: Cannot connect"):
                await pods.find("default", "unknown", "a-uid")
            assert pods.known
        finally:
            cluster.start_apiserver()
        node.annotate("known", {MODE: "TPROXY"})
        node.start_pod("later")
        await eventually(lambda: mode(pods, "known")() == "TPROXY", SOON, "what changed after the outage")
        await eventually(lambda: pods.count == 2, SOON, "the pod that came after the outage")


async def test_without_an_api_server_the_reason_says_why_pods_are_unknown(
    node: Node, kubeconfig: Path, agent: Agent, cluster: Cluster
) -> None:
    node.start_pod("early")
    cluster.kill_apiserver()
    try:
        async with agent(node, kubeconfig, known=False) as pods:
            await eventually(lambda: "failed: " in pods.reason, SOON, "it says that it cannot ask")
            assert not pods.known
            cluster.start_apiserver()
            await eventually(lambda: pods.known, SOON, "the agent knows its pods")
            assert pods.count == 1
    finally:
        if not cluster.is_running:
            cluster.start_apiserver()


async def test_pods_deleted_during_a_gap_are_forgotten(
    node: Node, kubeconfig: Path, agent: Agent, cluster: Cluster
) -> None:
    """The watch cannot go on where it was (410 Gone), and a new list does not tell who has gone."""
    node.start_pod("stays")
    node.start_pod("goes")
    async with Proxy(cluster.port) as proxy:
        through_proxy = cluster.kubeconfig("proxied", token=cluster.token(NAMESPACE, "istio-cni"), port=proxy.port)
        async with agent(node, through_proxy) as pods:
            await proxy.close()
            node.end_pod("goes")
            node.start_pod("comes")
            cluster.kill_apiserver()
            cluster.start_apiserver()  # it has no memory of what was
            lists = len(requests(cluster, node, "list"))
            await proxy.open()
            await eventually(lambda: heard(pods, "comes"), SOON, "the pod that came meanwhile")
            await eventually(lambda: pods.count == 2, SOON, "the pod that went meanwhile is forgotten")
            assert heard(pods, "goes") is None
            assert len(requests(cluster, node, "list")) > lists, "expected a new list: the gap was no gap"


async def test_a_pod_not_observed_yet_is_requested_by_name(
    node: Node, kubeconfig: Path, agent: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    uid = node.start_pod("unheard", node="not-this-node")
    async with agent(node, kubeconfig) as pods:
        found = await pods.find("default", "unheard", uid)
        assert found
        assert found.uid == uid
        assert await pods.find("default", "unheard", "the-uid-of-an-earlier-one") is None
        assert await pods.find("default", "nobody", None) is None
        assert await pods.find("..", "../nodes", None) is None
        assert pods.count == 0
    assert "is --node-name this node's name in the cluster?" in caplog.text


async def test_a_pod_is_told_from_an_earlier_one_of_its_name(node: Node, kubeconfig: Path, agent: Agent) -> None:
    first = node.start_pod("db-0", {MODE: "REDIRECT"})
    async with agent(node, kubeconfig) as pods:
        node.end_pod("db-0")
        second = node.start_pod("db-0", {MODE: "NONE"})
        for uid in (None, second):
            found = await pods.find("default", "db-0", uid)
            assert found
            assert found.uid == second, "heard of or not, it is the one that there is"
        await eventually(lambda: pods.count == 1 and heard(pods, "db-0").uid == second, SOON, "the second is heard of")
        assert await pods.find("default", "db-0", first) is None


async def test_a_static_pod_is_found_by_its_config_hash(node: Node, kubeconfig: Path, agent: Agent) -> None:
    node.start_pod("static", {"kubernetes.io/config.mirror": "7b8c", "kubernetes.io/config.hash": "7b8c"})
    async with agent(node, kubeconfig) as pods:
        assert await pods.find("default", "static", "7b8c") == heard(pods, "static")
        assert await pods.find("default", "static", "0000") is None


async def test_a_new_token_is_used_once_the_old_one_is_refused(
    node: Node, agent: Agent, cluster: Cluster, tmp_path: Path
) -> None:
    """Deleting a service account revokes its tokens at once, where expiry would take ten minutes (F4)."""
    cluster.service_account("default", "revoked", verbs="get,list,watch", resource="pods")
    token = tmp_path / "token"
    token.write_text(cluster.token("default", "revoked"))
    node.start_pod("stays")
    async with Proxy(cluster.port) as proxy:
        kubeconfig = cluster.kubeconfig("rotating", token_file=token, port=proxy.port)
        async with agent(node, kubeconfig) as pods:
            cluster.kubectl("delete", "serviceaccount", "revoked")
            await eventually(lambda: _refused(cluster, token.read_text()), SOON, "the old token is refused")
            with pytest.raises(PodsUnavailable, match="answered 401: the credentials are refused"):
                await pods.find("default", "unheard", None)
            proxy.cut()
            assert await pods.find("default", "stays", heard(pods, "stays").uid)
            cluster.kubectl("create", "serviceaccount", "revoked")
            token.write_text(cluster.token("default", "revoked"))
            node.start_pod("after")
            await eventually(lambda: pods.count == 2, SOON, "it hears again")


def _refused(cluster: Cluster, token: str) -> bool:
    config = cluster.kubeconfig("refused", token=token)
    kubectl = cluster.kubectl_command(f"--kubeconfig={config}", "get", "pods")
    return b"Unauthorized" in subprocess.run(kubectl, capture_output=True, check=False).stderr


async def test_a_missing_right_is_named_and_the_watch_starts_once_it_is_granted(
    node: Node, agent: Agent, cluster: Cluster
) -> None:
    cluster.service_account("default", "powerless")
    kubeconfig = cluster.kubeconfig("powerless", token=cluster.token("default", "powerless"))
    async with agent(node, kubeconfig, known=False) as pods:
        await eventually(lambda: "403" in pods.reason, SOON, "it says that it may not")
        assert "are the chart's roles of this release" in pods.reason
        cluster.grant("default", "powerless", verbs="get,list,watch", resource="pods")
        await eventually(lambda: pods.known, SOON, "it knows its pods")
        node.start_pod("first")
        await eventually(lambda: pods.count == 1, SOON, "it hears of a pod")


async def test_missing_credentials_are_named_by_their_file(node: Node, agent: Agent, tmp_path: Path) -> None:
    missing = tmp_path / "kubeconfig"
    async with agent(node, missing, known=False) as pods:
        await eventually(lambda: str(missing) in pods.reason, SOON, "it names the file")
        with pytest.raises(PodsUnavailable, match=r"no credentials for the API server: .*No such file"):
            await pods.find("default", "any", None)


async def test_kopf_leaves_the_agents_signals_and_tasks_alone(node: Node, kubeconfig: Path, agent: Agent) -> None:
    """In the agent's own loop kopf would take the signals, and at its end cancel what was started after it."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    try:
        async with agent(node, kubeconfig):
            other = asyncio.create_task(asyncio.Event().wait())
            os.kill(os.getpid(), signal.SIGTERM)
            async with asyncio.timeout(SOON):
                await told.wait()
        assert not other.done()
        other.cancel()
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


UNUSED = {"kubernetes", "aiohttp.web", "frozenlist._frozenlist", "http.server", "wsgiref.simple_server"}


def test_the_agent_does_not_import_what_its_libraries_alone_would_use() -> None:
    """Kopf would load `kubernetes` to see whether it is there, a third of the agent's memory; others load web servers."""
    program = f"""
import sys
import installer.agent.main, installer.agent.cluster, installer.pods.cluster
print(*({UNUSED!r} & sys.modules.keys()))
import {", ".join(sorted(UNUSED))}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []


def test_no_certificate_authority_is_read_for_connections_that_nobody_makes(cluster: Cluster) -> None:
    """By importing aiohttp; a kubeconfig without an authority is still checked against the system's."""
    program = """if True:
        import os, ssl
        before = dict(os.environ)
        import installer.pods.cluster
        from aiohttp.connector import _SSL_CONTEXT_VERIFIED as unused
        assert unused.cert_store_stats()["x509"] == 0
        assert os.environ == before
        assert ssl.create_default_context().cert_store_stats()["x509"]
    """
    environment = {"SSL_CERT_FILE": str(cluster.certificate), "SSL_CERT_DIR": os.devnull}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0
