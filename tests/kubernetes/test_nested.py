"""Objects as deep as an API server takes them end no reader: whoever may change a pod can make one (F37)."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from installer.kube.api_error import ApiError
from installer.kube.client import ApiClient
from installer.kube.credentials import credentials
from tests.kubernetes.conftest import SOON, entry, node_agent
from tests.kubernetes.front import Front, Said
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kubernetes.conftest import Node
    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver

LEVELS = 9_900  # of the 10,000 that the API server takes


def nested(levels: int, step: str = "f:a") -> str:
    return f'{{"{step}":' * levels + "{}" + "}" * levels


@contextmanager
def deep_pod(cluster: Cluster, node: Node, levels: int) -> Iterator[None]:
    """A mesh pod whose managedFields somebody with the right to patch pods has written; this process could not read it."""
    node.start_pod("deep")
    about = '"manager":"x","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1"'
    patch = f'{{"metadata":{{"managedFields":[{{{about},"fieldsV1":{nested(levels)}}}]}}}}'
    try:
        cluster.kubectl("patch", "pod", "deep", "--type=merge", f"--patch={patch}")
        yield
    finally:
        node.ended("deep")
        cluster.kubectl("delete", "pod", "deep", "--force", "--grace-period=0")


@pytest.mark.parametrize("levels", [900, 3_000])
def test_a_tenants_deep_pod_does_not_keep_an_agent_from_the_nodes_pods(
    cluster: Cluster, node: Node, tmp_path: Path, served: Path, levels: int
) -> None:
    with deep_pod(cluster, node, levels), node_agent(tmp_path, cluster, node.name, served) as agent:
        assert "1 pods of node" in agent.ready()
        node.start_pod("another")
        until(lambda: "istio_cni_pods 2.0" in agent.get("/metrics")[1], SOON, "the watch goes on")
        cluster.kubectl("annotate", "pod", "deep", "sidecar.istio.io/inject=false")
        node.end_pod("another")
        until(lambda: "istio_cni_pods 1.0" in agent.get("/metrics")[1], SOON, "and does so after a change of that pod")
        assert "RecursionError" not in agent.log.read_text()


def test_a_deep_resource_is_applied(cluster: Cluster, node: Node, tmp_path: Path, served: Path) -> None:
    cni = '"cni":{"excludeNamespaces":["elsewhere"]}'
    spec = f'{{"values":{{{cni}}},"unvalidatedValues":{{"other":{nested(LEVELS, "a")}}}}}'
    head = '"apiVersion":"install.istio.io/v1alpha2","kind":"IstioControlPlane","metadata":{"name":"deep"}'
    with node_agent(tmp_path, cluster, node.name, served) as agent:
        try:
            cluster.kubectl("create", "--filename=-", text=f'{{{head},"spec":{spec}}}')
            agent.ready()
            until(lambda: entry(agent).get("exclude_namespaces") == ["elsewhere"], SOON, "it is in force")
            assert "RecursionError" not in agent.log.read_text()
        finally:
            cluster.kubectl("delete", "icp", "deep", "--wait=false")


def test_people_can_look_at_such_objects(cluster: Cluster, node: Node, served: Path) -> None:
    head = '"apiVersion":"install.istio.io/v1alpha2","kind":"IstioControlPlane","metadata":{"name":"deep"}'
    spec = f'{{"unvalidatedValues":{{"other":{nested(LEVELS, "a")}}}}}'
    commands = ["status"], ["status", "--output=json"], ["explain", "pod", "default/deep"]
    with deep_pod(cluster, node, 3_000):
        cluster.kubectl("create", "--filename=-", text=f'{{{head},"spec":{spec}}}')
        try:
            for each in commands:
                command = [sys.executable, "-m", "installer", *each, f"--kubeconfig={cluster.folder}/admin.kubeconfig"]
                ran = subprocess.run(command, capture_output=True, text=True, check=False)
                assert ran.stdout, ran.stderr
                assert "Traceback" not in ran.stderr
        finally:
            cluster.kubectl("delete", "icp", "deep", "--wait=false")


async def test_an_answer_deeper_than_any_of_an_api_server_is_an_error(
    cluster: Cluster, kubeconfig: Path, tmp_path: Path
) -> None:
    info = credentials(kubeconfig)
    async with Front(info.server, info.as_ssl_context()) as front:
        front.instead = lambda _: Said(200, "[" * 1_000_000)
        api = ApiClient(front.kubeconfig(kubeconfig, tmp_path / "kubeconfig"))
        try:
            with pytest.raises(ApiError, match="recursion"):
                await api.get("/api/v1/pods")
        finally:
            await api.close()
