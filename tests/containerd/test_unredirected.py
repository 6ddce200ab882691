"""Running mesh pods whose netns the runtime names wrongly or not at all: each is redirected, or counted and named (F35)."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.containerd.test_pod_repair import SOON, said, started
from tests.support.machine import run_in
from tests.support.mesh import INJECTED, Mesh, rules
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.cri import Pod

pytestmark = pytest.mark.containerd

PATIENCE = 60.0  # seconds: an agent waits 30 for a redirect to appear
REDIRECT = "redirect to :15001"


@contextmanager
def agent(mesh: Mesh, mode: str, *pods: Pod) -> Iterator[None]:
    """Run the agent, and take away what it leaves, the pods too."""
    started(mesh, mode)
    try:
        yield
    finally:
        mesh.agent.stop()
        assert mesh.agent.uninstall().returncode == 0
        mesh.agent.log.unlink()
        mesh.forget()
        for pod in pods:
            mesh.result_file(pod).unlink(missing_ok=True)  # containerd removes no pod with one that it cannot read
            pod.remove()


def change(mesh: Mesh, pod: Pod, edit: Callable[[dict[str, Any]], None]) -> None:
    """Edit the runtime's record of a pod's network."""
    file = mesh.result_file(pod)
    kept = json.loads(file.read_bytes())
    edit(kept)
    file.write_text(json.dumps(kept))


def count(mesh: Mesh, kind: str = "unredirected") -> str:
    """Read the number of pods without a redirect, or with one, from /metrics."""
    text = mesh.agent.get("/metrics")[1]
    return next(line for line in text.splitlines() if line.startswith(f"istio_cni_{kind}_pods ")).split()[1]


def named(mesh: Mesh) -> dict[str, str]:
    """Read which pods the log names as not redirected, and why."""
    lines = [json.loads(line) for line in mesh.agent.log.read_text().splitlines()]
    found = [line for line in lines if line["msg"] == "a running pod had no redirect: NotRedirected"]
    return {line["pod"]: line["reason"] for line in found}


def without_sandbox(kept: dict[str, Any]) -> None:
    """Write it as Calico does: no interface has a sandbox (calico 9294)."""
    kept["result"] = {"cniVersion": "0.3.1", "interfaces": [{"name": "cali1"}], "ips": kept["result"]["ips"]}


def without_interfaces(kept: dict[str, Any]) -> None:
    del kept["result"]["interfaces"]


def in_proc(kept: dict[str, Any]) -> None:
    """Name a netns as cri-dockerd does: its last part is `net`."""
    kept["result"]["interfaces"][-1]["sandbox"] = kept["netns"] = "/proc/4711/ns/net"


def elsewhere(kept: dict[str, Any]) -> None:
    kept["result"]["interfaces"][-1]["sandbox"] = "/var/run/docker/netns/1-abcdef"


def without_uid(kept: dict[str, Any]) -> None:
    kept["cniArgs"] = [each for each in kept["cniArgs"] if each[0] != "K8S_POD_UID"]


def of_0_2_0(kept: dict[str, Any]) -> None:
    v4, v6 = (each["address"] for each in kept["result"]["ips"])
    kept["result"] = {"cniVersion": "0.2.0", "ip4": {"ip": v4}, "ip6": {"ip": v6}}


def named_by_the_runtime_alone(kept: dict[str, Any]) -> None:
    kept["netns"] = kept["result"]["interfaces"][-1]["sandbox"]
    kept["result"] = {"cniVersion": "1.0.0"}


def not_as_libcni_writes_it(kept: dict[str, Any]) -> None:
    del kept["kind"]


def of(version: str, path: str) -> Callable[[dict[str, Any]], None]:
    """Write it as libcni does for a list of this version, with a netns outside the runtime's directory."""

    def edit(kept: dict[str, Any]) -> None:
        result = kept["result"]
        result["cniVersion"] = version
        for each in result["interfaces"]:
            each.update({"mtu": 1500, "socketPath": "", "pciID": ""} if version == "1.1.0" else {})
        for each in result["ips"]:
            each.pop("version", None)
        result["interfaces"][-1]["sandbox"] = kept["netns"] = path

    edit.__name__ = f"{version} in {path}"
    return edit


ELSEWHERE = "/proc/4711/ns/net", "/var/run/docker/netns/1-abcdef", "/var/lib/runtime/state/1/netns"

EDITS = (
    *(of(version, path) for version in ("1.0.0", "1.1.0") for path in ELSEWHERE),
    without_sandbox,
    without_interfaces,
    in_proc,
    elsewhere,
    without_uid,
    of_0_2_0,
    named_by_the_runtime_alone,
    not_as_libcni_writes_it,
)


def test_the_netns_is_proven_even_from_a_sparse_result(mesh: Mesh) -> None:  # F35, D14
    pods = {edit: mesh.create(f"early-{index}", injected=True) for index, edit in enumerate(EDITS)}
    lost = mesh.create("lost", injected=True)
    mesh.result_file(lost).unlink()
    for edit, pod in pods.items():
        change(mesh, pod, edit)
        mesh.runs(pod, known_addresses=edit is not named_by_the_runtime_alone)
    mesh.runs(lost)
    with strangers(mesh, "net") as stranger, agent(mesh, "redirect", *pods.values(), lost):
        for edit, pod in pods.items():
            until(lambda pod=pod: REDIRECT in rules(pod), SOON, f"{edit.__name__}: the pod has rules")  # type: ignore[misc]
        until(lambda: REDIRECT in rules(lost), SOON, "the pod without a result has rules")
        assert stranger() == ""
        assert count(mesh) == "0.0"


def test_an_unproven_netns_is_counted_and_reported(mesh: Mesh) -> None:  # F35
    other = mesh.create("other", injected=False)
    moved = mesh.create("moved", injected=True)
    change(mesh, moved, lambda kept: kept["result"].update(ips=[{"address": "10.9.9.9/24"}]))
    claims = mesh.create("claims", injected=True)  # its result names a foreign netns
    there = json.loads(mesh.result_file(other).read_bytes())["result"]["interfaces"][-1]["sandbox"]
    change(mesh, claims, lambda kept: kept["result"]["interfaces"][-1].update(sandbox=there))
    lost, large, twice = (mesh.create(name, injected=True) for name in ("lost", "large", "twice"))
    mesh.result_file(lost).unlink()
    mesh.result_file(large).write_bytes(b" " * (9 << 20))
    change(mesh, twice, without_sandbox)
    wrong = mesh.create(
        "wrong", injected=True, annotations={"traffic.sidecar.istio.io/includeOutboundIPRanges": "10.0.0/x"}
    )
    for pod in (claims, twice, wrong):
        mesh.runs(pod)
    for pod in (moved, lost, large):
        mesh.runs(pod, known_addresses=False)
    running = {"phase": "Running", "podIPs": [{"ip": "10.9.9.8"}]}
    mesh.declare("on-the-node", spec={"hostNetwork": True}, status=running)  # never part of the mesh
    mesh.declare("over", status={"phase": "Succeeded"})
    mesh.declare("gone", status=running)
    pods = {pod.config.metadata.name: pod for pod in (moved, claims, lost, large, twice, wrong)}
    with strangers(mesh, "net", *twice.ips) as stranger, agent(mesh, "redirect", other, *pods.values()):
        until(lambda: named(mesh).keys() == {*pods, "gone"}, PATIENCE, "the log names all of them")
        assert count(mesh) == "7.0"
        assert "10.9.9.9" in named(mesh)["moved"]
        assert f"does not have {claims.ips[0]}" in named(mesh)["claims"]
        assert "9437184 bytes" in named(mesh)["large"]
        assert f"2 network namespaces in /run/netns have {twice.ips[0]}" in named(mesh)["twice"]
        assert "includeOutboundIPRanges" in named(mesh)["wrong"]
        assert [rules(pod) for pod in (other, *pods.values())] == [""] * 7
        assert stranger() == ""


def test_a_netns_outside_the_runtimes_directory_is_reported_with_its_path(mesh: Mesh) -> None:  # F35
    places = {"in-docker": "/run/docker/netns/1-abcdef", "moved": "/run/containerd/netns/cni-moved"}
    pods = {name: mesh.create(name, injected=True) for name in places}
    for name, place in places.items():
        mesh.runs(pods[name])
        usual = json.loads(mesh.result_file(pods[name]).read_bytes())["result"]["interfaces"][-1]["sandbox"]
        for command in (
            ["/usr/bin/mkdir", "-p", place.rpartition("/")[0]],
            ["/usr/bin/touch", place],
            ["/usr/bin/mount", "--bind", usual.removeprefix("/var"), place],
            ["/usr/bin/umount", usual.removeprefix("/var")],
            ["/usr/bin/rm", usual.removeprefix("/var")],
        ):
            mesh.node.run_inside(command)
        change(mesh, pods[name], lambda kept, place=place: kept["result"]["interfaces"][-1].update(sandbox=place))  # type: ignore[misc]
    with ExitStack() as stack:
        alike = [stack.enter_context(strangers(mesh, place.rpartition("/")[2])) for place in places.values()]
        stack.enter_context(agent(mesh, "redirect", *pods.values()))
        until(lambda: named(mesh).keys() == places.keys(), PATIENCE, "the log names the pods")
        for name, place in places.items():
            assert f"and {place}, which its network's result names, is outside it" in named(mesh)[name]
        assert count(mesh) == "2.0"
        assert [rules() for rules in alike] == ["", ""]


# cniVersion of a conflist, and its plugins: before 0.3.0 there is no prevResult, which portmap needs.
VERSIONS = {"0.1.0": 1, "0.2.0": 1, "0.3.0": 2, "0.3.1": 2, "0.4.0": 2, "1.0.0": 2}


@pytest.mark.parametrize("first", [4, 6])
def test_the_netns_is_found_from_a_result_of_any_version(mesh: Mesh, first: int) -> None:  # F35
    primary = mesh.node.conf_dir / "10-k8s.conflist"
    usual, pods = primary.read_text(), {}
    for version, plugins in VERSIONS.items():
        network = json.loads(usual) | {"cniVersion": version}
        network["plugins"] = network["plugins"][:plugins]
        ranges = network["plugins"][0]["ipam"]["ranges"]
        ranges.sort(key=lambda each: (":" in each[0]["subnet"]) == (first == 4))
        primary.with_name("10-k8s.new").write_text(json.dumps(network))
        primary.with_name("10-k8s.new").rename(primary)
        until(lambda n=plugins: len(mesh.node.plugins_loaded()) == n, SOON, "the runtime has loaded it")  # type: ignore[misc]
        pods[version] = mesh.create(f"of-{version.replace('.', '-')}", injected=True)
        mesh.runs(pods[version])
        kept = json.loads(mesh.result_file(pods[version]).read_bytes())["result"]
        assert kept["cniVersion"] == version, "libcni keeps the list's"
    mesh.node.write_primary()
    mesh.node.wait_network_ready()
    with agent(mesh, "redirect", *pods.values()):
        for version, pod in pods.items():
            until(lambda pod=pod: REDIRECT in rules(pod), SOON, f"the pod of {version} has rules")  # type: ignore[misc]
        until(lambda: count(mesh, "redirected") == f"{len(pods)}.0", SOON, "they are counted")
        assert count(mesh) == "0.0"


@contextmanager
def strangers(mesh: Mesh, name: str, *addresses: str) -> Iterator[Callable[[], str]]:
    """Have a netns of somebody else beside the pods', with these addresses; what is given lists its rules."""
    path = f"/run/netns/{name}"
    mesh.node.run_inside(["/usr/bin/touch", path])
    mesh.node.run_inside(["/usr/bin/unshare", f"--net={path}", "/usr/bin/true"])
    netns = mesh.node.seen(f"/var/run/netns/{name}")
    run_in(netns, ["/usr/sbin/ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"])
    for address in addresses:
        run_in(netns, ["/usr/sbin/ip", "address", "add", f"{address}/24", "dev", "v0"])
    try:
        yield lambda: run_in(netns, ["/usr/sbin/nft", "list", "ruleset"]).stdout
    finally:
        mesh.node.run_inside(["/usr/bin/umount", path])
        mesh.node.run_inside(["/usr/bin/rm", path])


@pytest.mark.parametrize("mode", ["none", "report"])
def test_an_unrepaired_pod_is_counted_and_reported(mesh: Mesh, mode: str) -> None:
    pod = mesh.create("early", injected=True)
    with agent(mesh, mode, pod):
        until(lambda: "NotRedirected" in said(mesh), SOON, "the log names the pod")
        assert count(mesh) == "1.0"
        assert rules(pod) == ""


def test_annotations_of_maximum_size_do_not_hide_the_pod(mesh: Mesh) -> None:
    mesh.declare("early")
    large = {"example.com/notes": "\x01" * (255 << 10)}  # each of these is six characters in JSON
    pod = mesh.node.run_sandbox("shop", "early", annotations=large | INJECTED)
    assert mesh.result_file(pod).stat().st_size > 1_500_000
    with agent(mesh, "redirect", pod):
        until(lambda: REDIRECT in rules(pod), SOON, "it has rules")


def test_a_pod_that_fills_its_netns_is_reported_and_the_others_proceed(mesh: Mesh) -> None:  # F37
    full, early = mesh.create("a-full", injected=True), mesh.create("early", injected=True)
    chains = "".join(f":C{number} - [0:0]\n-A C{number} -p tcp -j ACCEPT\n" for number in range(100_000))
    full.inside(["/usr/sbin/iptables-nft-restore"], stdin=f"*nat\n{chains}COMMIT\n")
    for pod in (full, early):
        mesh.runs(pod)
    with agent(mesh, "redirect", full, early):
        until(lambda: REDIRECT in rules(early), SOON, "the other has rules")
        until(lambda: "a-full" in named(mesh), PATIENCE, "the full one is named")
        assert "more than 4096 nftables chains" in named(mesh)["a-full"]
        assert count(mesh) == "1.0"
