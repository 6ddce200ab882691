"""All kinds of workloads in a real mesh, and what their annotations ask for."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.istio.mesh import MESHED, PRIVILEGED
from tests.e2e.shop import ENVOY
from tests.support.nodeconfig import DNS

if TYPE_CHECKING:
    from tests.e2e.istio.mesh import Mesh

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ONLY_ISTIO_KNOWS = "only.istio.example"
ITS_ADDRESS = "192.0.2.7"
# Asks a DNS server (RFC 1035) for the IPv4 address of a name, over UDP.
_RESOLVE = """
import socket, struct, sys
name = b"".join(bytes([len(part)]) + part.encode() for part in sys.argv[1].split(".")) + b"\\0"
asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asked.settimeout(20)
asked.sendto(struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + name + struct.pack("!2H", 1, 1), (sys.argv[2], 53))
print(socket.inet_ntoa(asked.recv(512)[-4:]))
"""


@pytest.mark.parametrize("kind", ["Job", "CronJob"])
def test_a_job_calls_through_its_sidecar_and_completes(mesh: Mesh, server: str, kind: str) -> None:
    for node in mesh.cluster.nodes:
        assert mesh.finish(kind.lower(), node, server, kind=kind) == f"server {ENVOY}"


def test_a_stateful_set_is_in_the_mesh(mesh: Mesh, server: str) -> None:
    second = mesh.cluster.second
    mesh.start("ordinal", second, kind="StatefulSet")
    assert mesh.ask("ordinal-0", server, kind="pod") == f"server {ENVOY}"
    assert mesh.ask("server", mesh.service("ordinal")) == f"ordinal {ENVOY}"
    mesh.stop("ordinal", kind="StatefulSet")


def test_classic_and_native_sidecars_are_redirected_alike(mesh: Mesh, server: str) -> None:
    hold = {"holdApplicationUntilProxyStarts": True}
    annotations = {"sidecar.istio.io/nativeSidecar": "false", "proxy.istio.io/config": json.dumps(hold)}
    pod = mesh.start("classic", mesh.cluster.second, annotations=annotations)
    assert "istio-proxy" in [each["name"] for each in pod["spec"]["containers"]]
    assert mesh.ask("classic", server) == f"server {ENVOY}"
    assert mesh.ask("server", mesh.service("classic")) == f"classic {ENVOY}"
    mesh.stop("classic")


def test_under_tproxy_an_application_sees_its_client_and_reaches_its_own_service(mesh: Mesh, server: str) -> None:
    annotations = {"sidecar.istio.io/interceptionMode": "TPROXY"}
    client = mesh.pod("server")["status"]["podIP"]
    for node in mesh.cluster.nodes:
        mesh.start("seeing", node, where=PRIVILEGED, annotations=annotations)
        own = mesh.service("seeing", PRIVILEGED)
        assert mesh.ask("server", own) == f"seeing {client}"
        assert mesh.ask("seeing", server, where=PRIVILEGED) == f"server {ENVOY}"
        assert mesh.ask("seeing", own, where=PRIVILEGED).startswith("seeing ")
        mesh.stop("seeing", where=PRIVILEGED)


def test_the_sidecar_answers_captured_dns_queries(mesh: Mesh, server: str) -> None:
    mesh.node.apply(_service_entry())
    captures = {"proxyMetadata": {"ISTIO_META_DNS_CAPTURE": "true"}}
    pod = mesh.start("resolving", mesh.cluster.second, annotations={"proxy.istio.io/config": json.dumps(captures)})
    resolve = [sys.executable, "-I", "-S", "-c", _RESOLVE, ONLY_ISTIO_KNOWS, DNS]
    assert mesh.inside(mesh.cluster.second, pod, resolve).strip() == ITS_ADDRESS
    assert mesh.inside(mesh.cluster.first, mesh.pod("server"), resolve).strip() != ITS_ADDRESS, "it captures none"
    mesh.stop("resolving")


def test_a_pod_with_a_user_namespace_is_in_the_mesh(mesh: Mesh, server: str) -> None:
    pod = mesh.start("mapped", mesh.cluster.second, hostUsers=False)
    assert pod["spec"]["hostUsers"] is False
    assert mesh.ask("mapped", server) == f"server {ENVOY}"
    assert mesh.ask("server", mesh.service("mapped")) == f"mapped {ENVOY}"
    mesh.stop("mapped")


def test_istioctl_reports_synced_sidecars_and_no_issue(mesh: Mesh, server: str) -> None:
    status = mesh.istioctl("proxy-status")
    (line,) = [line for line in status.splitlines() if line.startswith(mesh.pod("server")["metadata"]["name"])]
    assert "STALE" not in line
    assert not mesh.istioctl("analyze", "--failure-threshold=Info", f"--namespace={MESHED}").strip()


def _service_entry() -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": "only-istio", "namespace": MESHED},
        "spec": {
            "hosts": [ONLY_ISTIO_KNOWS],
            "addresses": [ITS_ADDRESS],
            "ports": [{"number": 80, "name": "tcp", "protocol": "TCP"}],
            "resolution": "STATIC",
            "endpoints": [{"address": ITS_ADDRESS}],
        },
    }
