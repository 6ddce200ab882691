"""The node under the other tests: its answers are right, and nothing of it stays behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import envoy
from tests.support.containerd import Node
from tests.support.cri import SandboxError
from tests.support.images import APP, compiled
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cri import Container, Pod

pytestmark = pytest.mark.containerd

ROOT = Path(__file__).parents[2]
REDIRECT = """\
table inet by_hand {
  chain inbound {
    type nat hook prerouting priority -100
    meta l4proto tcp redirect to :15006
  }
  chain outbound {
    type nat hook output priority -100
    oifname "lo" return
    meta skuid 1337 return
    meta l4proto tcp redirect to :15001
  }
}
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(tmp_path_factory.mktemp("node") / "node") as node:
        node.write_primary()
        node.wait_network_ready()
        yield node


@pytest.fixture
def pod(node: Node) -> Iterator[Pod]:
    pod = node.run_sandbox("default", "app")
    yield pod
    pod.remove()


@pytest.fixture
def other(node: Node) -> Iterator[Pod]:
    pod = node.run_sandbox("default", "other")
    yield pod
    pod.remove()


def serving(pod: Pod, name: str) -> Container:
    container = pod.run(name, APP, ["/web", name, "8080"], uid=1000, gid=1000)
    container.wait_for_log("serves on port 8080")
    return container


def get(address: str) -> list[str]:
    return ["/get", f"http://{f'[{address}]' if ':' in address else address}:8080"]


def here(command: list[str]) -> list[str]:
    return [str(compiled(command[0].removeprefix("/"))), *command[1:]]


def test_a_sandbox_has_an_address_of_each_family(pod: Pod) -> None:
    v4, v6 = pod.ips
    addresses = json.loads(pod.inside(["/usr/sbin/ip", "-json", "address", "show", "dev", "eth0"]).stdout)
    found = [info["local"] for info in addresses[0]["addr_info"] if info["scope"] == "global"]
    assert found == [v4, v6]
    assert v4.startswith("10.244.1.")
    assert v6.startswith("fd00:10:244:1::")


def test_the_runtime_notices_a_rename_into_its_directory(node: Node) -> None:
    assert node.plugins_loaded() == ["bridge", "portmap"]
    conflist = node.write_primary()
    longer = json.loads(conflist.read_bytes())
    longer["plugins"].append({"type": "not-there"})
    beside = conflist.with_suffix(".tmp")
    beside.write_text(json.dumps(longer))
    beside.replace(conflist)
    until(lambda: node.plugins_loaded() == ["bridge", "portmap", "not-there"], 10, "the runtime has loaded the change")
    with pytest.raises(SandboxError, match='failed to find plugin "not-there"'):
        node.run_sandbox("default", "unlucky")
    node.write_primary()
    until(lambda: node.plugins_loaded() == ["bridge", "portmap"], 10, "the runtime has loaded the primary's file again")


def test_a_pods_server_is_reachable_from_the_node_and_other_pods(node: Node, pod: Pod, other: Pod) -> None:
    serving(pod, "app")
    client = serving(other, "other")
    for address, source in zip(pod.ips, other.ips, strict=True):
        assert node.run(here(get(address))).stdout.startswith("app ")
        assert client.exec(get(address)).stdout == f"app {source}\n"


def test_envoy_counts_redirected_connections_and_forwards_them(node: Node, pod: Pod, other: Pod) -> None:
    application = serving(pod, "app")
    serving(other, "other")
    envoy.start(pod)
    pod.inside(["/usr/sbin/ip", "address", "add", "::6/128", "dev", "lo"])
    pod.inside(["/usr/sbin/nft", "--file", "-"], stdin=REDIRECT)
    assert envoy.counters(pod) == {"inbound": 0, "outbound": 0}
    for address, pass_through in zip(pod.ips, ("127.0.0.6", "::6"), strict=True):
        assert node.run(here(get(address))).stdout == f"app {pass_through}\n"
    assert envoy.counters(pod) == {"inbound": 2, "outbound": 0}
    for address, source in zip(other.ips, pod.ips, strict=True):
        assert application.exec(get(address)).stdout == f"other {source}\n"
    assert envoy.counters(pod) == {"inbound": 2, "outbound": 2}


def test_a_container_runs_as_its_user_until_it_exits(pod: Pod) -> None:
    container = serving(pod, "app")
    assert container.running
    status = Path(f"/proc/{process_in(pod, '/web')}/status").read_text()
    assert "Uid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\n" in status
    assert "CapBnd:\t0000000000000000\n" in status
    ended = pod.run("ended", APP, ["/get"])
    until(lambda: not ended.running, 10, "the container has ended")
    assert ended.log() == "usage: get [--repeat] http://ADDRESS[:PORT][/PATH]"


def test_a_finished_test_leaves_no_pods_mounts_or_links(tmp_path: Path) -> None:
    outside = left_outside(tmp_path)
    with pytest.raises(ZeroDivisionError), Node(tmp_path / "node") as node:  # noqa: PT012 - how it ends is the point
        spaces = filled(node)
        raise ZeroDivisionError
    assert inhabitants(spaces) == []
    assert cgroups(node.cgroup) == []
    until(lambda: left_outside(tmp_path) == outside, 10, "nothing is left, apart from what other tests have meanwhile")
    assert sorted(path.name for path in node.folder.iterdir()) == [
        "cni", "containerd.log", "containerd.toml", "net.d", "pods",
    ]  # fmt: skip


def test_a_killed_test_leaves_no_pods_mounts_or_links(tmp_path: Path) -> None:
    outside = left_outside(tmp_path)
    command = [sys.executable, "-m", "tests.containerd.test_support", str(tmp_path / "node")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as test:
        assert test.stdout
        cgroup, *spaces = test.stdout.readline().split()
        assert len(inhabitants(set(spaces))) >= 5, "containerd, a shim, the pod's and the container's processes"
        assert cgroups(cgroup)
        test.send_signal(signal.SIGKILL)
    until(lambda: not inhabitants(set(spaces)), 10, "no process is left in the node's namespaces")
    until(lambda: not cgroups(cgroup), 10, f"no cgroup {cgroup} is left")
    until(lambda: left_outside(tmp_path) == outside, 10, "nothing is left, apart from what other tests have meanwhile")


def filled(node: Node) -> set[str]:
    """Give a node a pod with a container; return the namespaces that only it has."""
    node.write_primary()
    node.wait_network_ready()
    pod = node.run_sandbox("default", "app")
    serving(pod, "app")
    spaces = (node.netns, node.netns.with_name("mnt"))
    return {f"net:[{pod.netns.stat().st_ino}]", *(str(space.readlink()) for space in spaces)}


def process_in(pod: Pod, program: str) -> str:
    pids = inhabitants({f"net:[{pod.netns.stat().st_ino}]"})
    return next(pid for pid in pids if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(program.encode()))


def inhabitants(spaces: set[str]) -> list[str]:
    """List the processes that are in one of these network or mount namespaces."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            own = {str((process / "ns" / kind).readlink()) for kind in ("net", "mnt")}
        except OSError:  # it has just ended, or is a zombie
            continue
        if own & spaces:
            found.append(process.name)
    return found


def cgroups(name: str) -> list[Path]:
    return [*Path("/sys/fs/cgroup").glob(name), *Path("/sys/fs/cgroup").glob(f"*/{name}")]


def left_outside(folder: Path) -> list[object]:
    """What a runtime leaves at fixed places, and the mounts that this process sees there and below a folder."""
    places = [Path(path) for path in ("/run/containerd", "/run/runc", "/var/lib/cni", "/var/lib/containerd")]
    netns_files = [path.name for path in Path("/run/netns").glob("cni-*")]
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    ours = [mount for mount in mounts if mount.startswith(("/run", "/var", "/proc", str(folder)))]
    return [[place.exists() for place in places], sorted(netns_files), sorted(ours)]


if __name__ == "__main__":
    with Node(Path(sys.argv[1])) as to_be_killed:
        print(to_be_killed.cgroup, *filled(to_be_killed), flush=True)
        signal.pause()


def test_missing_requirements_of_a_kubernetes_node_are_named() -> None:
    asked = (
        "from tests.support.nodeconfig import DEBIAN; from tests.support.worker import lacking; print(*lacking(DEBIAN))"
    )
    bare = ["/usr/bin/setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    told = subprocess.run(
        [*bare, sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert told.startswith("CAP_NET_ADMIN CAP_SYS_ADMIN")
