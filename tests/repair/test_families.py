"""A running pod's netns is inspected family by family, and redirected by its addresses (F38, F43)."""

from __future__ import annotations

import ipaddress
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from installer.repair.inspection import Found, Inspection, inspect
from installer.repair.netns_proof import Known, NetnsFiles
from plugin.apply import apply
from plugin.backend import Backend, Capability
from plugin.decision import decide
from plugin.netns import NetnsFd
from plugin.parameters import Defaults, Ipv6
from plugin.pod import Pod
from plugin.program import Plan
from plugin.redirect import Family, Redirect
from tests.support.netns import Netns, UserNetns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.kernel

V4, V6 = "10.0.0.7", "fd00:1::3"
STEPS = "link set lo up", "link add eth0 type veth peer name peer", "link set eth0 up", "link set peer up"
# What Istio's own agent writes, as far as it leads what the pod sends to the sidecar.
OF_ISTIO = "; ".join(
    f"add {each}"
    for each in (
        "table inet istio-proxy-nat",
        "chain inet istio-proxy-nat output { type nat hook output priority -100 ; policy accept ; }",
        "chain inet istio-proxy-nat istio-output",
        "chain inet istio-proxy-nat istio-redirect",
        "rule inet istio-proxy-nat istio-redirect meta l4proto tcp redirect to :15001",
        "rule inet istio-proxy-nat istio-output jump istio-redirect",
        "rule inet istio-proxy-nat output jump istio-output",
    )
)


@pytest.fixture(params=Backend, ids=lambda backend: backend.value)
def backend(request: pytest.FixtureRequest) -> Backend:
    return Backend(request.param)


@pytest.fixture(params=[Netns, UserNetns], ids=["node's user namespace", "own user namespace"])
def netns(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Netns]:
    with request.param(tmp_path / "cni-1") as made:
        for step in STEPS:
            run_in(made, "ip", *step.split())
        yield made


def run_in(netns: Netns, tool: str, *words: str) -> None:
    subprocess.run(["/usr/bin/nsenter", f"--net={netns.path}", f"/usr/sbin/{tool}", *words], check=True)


def has(netns: Netns, *addresses: str) -> None:
    """Give it addresses."""
    for each in addresses:
        nodad = ["nodad"] if ":" in each else []
        run_in(netns, "ip", "address", "add", f"{each}/{64 if nodad else 24}", "dev", "eth0", *nodad)


def plan(*said: str) -> Plan:
    """The plan for the pod, from its result or the API server's addresses."""
    spec = {"containers": [{"name": "app"}, {"name": "istio-proxy"}]}
    metadata = {"name": "web", "annotations": {"sidecar.istio.io/status": "{}"}}
    pod, addresses = Pod.from_manifest({"metadata": metadata, "spec": spec}), tuple(map(ipaddress.ip_address, said))
    verdict = decide(pod, addresses, Defaults())
    assert isinstance(verdict, Redirect)
    return Plan(verdict, addresses, lambda known: decide(pod, known, Defaults()), Ipv6.AUTO)


def look(netns: Netns, given: Plan | None, backend: Backend, *, writes: bool = True) -> Found:
    """Inspect it on a worker, as the agent does."""
    name, folder = netns.path.name, netns.path.parent
    known = Known((name,), name, given.prev_addresses if given else (), frozenset())
    with ThreadPoolExecutor(1) as worker:
        return worker.submit(
            inspect, Inspection(known, given, writes=writes), NetnsFiles(folder, folder), Capability(backend)
        ).result()


def redirect(netns: Netns, backend: Backend, *families: Family) -> None:
    with netns.path.open("rb") as file, ThreadPoolExecutor(1) as worker:
        worker.submit(lambda: apply(NetnsFd(file.fileno()), Redirect(families=families), backend).free()).result()


def test_a_running_pod_is_redirected_by_its_addresses(netns: Netns, backend: Backend) -> None:
    """The runtime's result has no address, and the runtime itself names the netns."""
    has(netns, V6)
    assert look(netns, plan(), backend, writes=False) == Found()
    assert look(netns, plan(), backend) == Found(repaired=True, written=f"IPv4 and IPv6, as it has the address {V6}")
    assert look(netns, plan(), backend) == Found(redirected=True)


def test_ipv6_that_bypasses_the_sidecar_is_reported(netns: Netns, backend: Backend) -> None:
    """An earlier agent left an IPv6 pod without prevResult with rules for IPv4 alone."""
    has(netns, V6)
    redirect(netns, backend, Family.V4)
    assert look(netns, plan(), backend) == Found(bypassed=f"{V6} bypasses its sidecar")
    redirect(netns, backend, Family.V4, Family.V6)
    assert look(netns, plan(), backend) == Found(redirected=True)


def test_an_ipv4_pod_needs_no_ipv6_rules(netns: Netns, backend: Backend) -> None:
    has(netns, V4, V6)
    redirect(netns, backend, Family.V4)
    assert look(netns, plan(V4), backend) == Found(redirected=True)


def test_a_repair_reports_what_bypasses_the_sidecar(netns: Netns, backend: Backend) -> None:
    has(netns, V4, V6)
    told = look(netns, plan(V4), backend).written
    assert told == f"IPv4, as its first address is {V4} and ISTIO_DUAL_STACK is not true; {V6} bypasses its sidecar"


def test_a_table_of_both_families_redirects_both(netns: Netns) -> None:
    has(netns, V6)
    run_in(netns, "nft", OF_ISTIO)
    assert look(netns, plan(V6), Backend.NFT) == Found(redirected=True)
