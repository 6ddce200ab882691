"""A mesh whose pods have addresses of both families, or of IPv6 alone."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e import workloads
from tests.e2e.istio.mesh import MESHED
from tests.e2e.istio.test_mesh import refused
from tests.e2e.shop import ENVOY
from tests.support.nodeconfig import DNS6
from tests.support.wait import until
from tests.support.worker import CONF_DIR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.istio.mesh import Mesh

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ENVOY6 = "::6"  # from where Envoy connects to the application over IPv6
DUAL = {"proxy.istio.io/config": json.dumps({"proxyMetadata": {"ISTIO_DUAL_STACK": "true"}})}
SLOWEST = 60.0  # seconds


@pytest.fixture(scope="module")
def dual(mesh: Mesh) -> Iterator[dict[str, Any]]:
    """A dual-stack application on each node, by its name, with a dual-stack Service."""
    mesh.deploy("one", mesh.cluster.first, annotations=DUAL)
    mesh.deploy("two", mesh.cluster.second, annotations=DUAL)
    mesh.node.apply(*map(dual_service, ("one", "two")))
    yield {name: mesh.ready(name) for name in ("one", "two")}
    mesh.stop("one", "two")


def dual_service(name: str) -> dict[str, Any]:
    """Make an application's Service with an address of each family."""
    made = workloads.service(name, MESHED)
    made["spec"]["ipFamilyPolicy"] = "RequireDualStack"
    return made


def service6(mesh: Mesh, name: str) -> str:
    """Say where an application's Service answers over IPv6."""
    addresses = mesh.node.read(f"service/{name}", MESHED)["spec"]["clusterIPs"]
    (address,) = [each for each in addresses if ":" in each]
    return f"http://[{address}]"


def answer(mesh: Mesh, client: str, target: str) -> str:
    """Ask once; empty: no answer, as before all sidecars know of a new Service."""
    with suppress(AssertionError):
        return mesh.ask(client, target)
    return ""


def url6(pod: dict[str, Any]) -> str:
    """Say where a pod's application answers over IPv6."""
    (address,) = [each["ip"] for each in pod["status"]["podIPs"] if ":" in each["ip"]]
    return f"http://[{address}]:{workloads.PORT}"


def test_dual_stack_pods_use_mutual_tls_over_both_families(mesh: Mesh, dual: dict[str, Any]) -> None:
    for client, server in (("one", "two"), ("two", "one")):
        for target in (mesh.service(server), service6(mesh, server)):
            before = mesh.handshakes(server)
            assert mesh.ask(client, target) in (f"{server} {ENVOY}", f"{server} {ENVOY6}"), "the client's Envoy chooses"
            assert mesh.handshakes(server) > before


def test_plaintext_over_ipv6_is_refused(mesh: Mesh, dual: dict[str, Any]) -> None:
    for pod in dual.values():
        for node in mesh.cluster.nodes:
            assert refused(mesh.ask_from, node, url6(pod))


def test_a_pod_with_ipv6_alone_is_in_the_mesh(mesh: Mesh, dual: dict[str, Any]) -> None:
    second = mesh.cluster.second
    resolver = {"nameservers": [DNS6], "searches": ["svc.cluster.local", "cluster.local"]}
    second.write_primary(second.place.pods[1])

    def is_chained() -> bool:
        return '"istio-cni"' in (second.seen(CONF_DIR) / "10-k8s.conflist").read_text()

    try:
        until(is_chained, SLOWEST, "the agent has added its entry to the conflist of IPv6 alone")
        pod = mesh.start("six", second, dnsPolicy="None", dnsConfig=resolver)
        assert [":" in each["ip"] for each in pod["status"]["podIPs"]] == [True]
        mesh.node.apply(dual_service("six"))
        before = mesh.handshakes("six")
        until(lambda: answer(mesh, "one", service6(mesh, "six")) == f"six {ENVOY6}", SLOWEST, "six answers over IPv6")
        assert mesh.handshakes("six") > before
        assert mesh.ask("six", service6(mesh, "one")) == f"one {ENVOY6}"
        assert refused(mesh.ask_from, second, url6(pod))
    finally:
        mesh.stop("six")
        second.write_primary()
        until(is_chained, SLOWEST, "the agent has added its entry to the conflist of both families")
