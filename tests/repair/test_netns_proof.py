"""Proving a pod's netns when the one that the runtime named is gone (D14)."""

from __future__ import annotations

import ipaddress
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from installer.host.cni_cache import Sandbox
from installer.repair import process_netns
from installer.repair.inspection import Found, Inspection, inspect
from installer.repair.netns_proof import Known, NetnsFiles, UnprovenError
from installer.repair.process_netns import ProcessNetns
from installer.repair.sandbox_index import Doubt, SandboxIndex
from plugin.backend import Backend, Capability
from plugin.pod import Pod
from tests.support.netns import Netns

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.kernel

ADDRESS = ipaddress.ip_address("10.0.0.7")
STEPS = "link add eth0 type veth peer name peer", f"address add {ADDRESS}/24 dev eth0", "link set eth0 up"


def known_of_one_whose_netns_is_gone(folder: Path, *others: Sandbox) -> Known | Doubt:
    """The known facts about a pod whose sandbox has ended, as after a reboot."""
    files = NetnsFiles(folder, folder)
    pod = Pod("shop", "cart", "uid-1", {}, {}, (), (), running=True, ips=(str(ADDRESS),))
    path = f"{folder}/cni-gone"
    mine = Sandbox("id-1", "shop", "cart", "uid-1", path, path, (ADDRESS,), "k8s", False, 1000.0)
    return SandboxIndex((mine, *others), files, was_added=lambda _: False, unreadable=lambda: ()).known(pod)


def look(folder: Path, known: Known) -> Found:
    """Inspect that pod while another pod's netns has its address; on a worker, as the agent does."""
    with Netns(folder / "cni-other") as netns, ThreadPoolExecutor(1) as workers:
        for step in STEPS:
            subprocess.run(["/usr/bin/nsenter", f"--net={netns.path}", "/sbin/ip", *step.split()], check=True)
        wanted = Inspection(known, None, writes=False)
        return workers.submit(inspect, wanted, NetnsFiles(folder, folder), Capability(Backend.NFT)).result()


@pytest.mark.parametrize("name", ["a\0b", "\0", "a\udcffb", "\ud83d"])
def test_a_result_with_a_name_that_no_file_has_proves_nothing_and_stops_nothing(tmp_path: Path, name: str) -> None:
    path = f"{tmp_path}/{name}"
    odd = Sandbox("id-1", "shop", "cart", "uid-1", path, path, (ADDRESS,), "k8s", True, 1000.0)
    index = SandboxIndex([odd], NetnsFiles(tmp_path, tmp_path), was_added=lambda _: False, unreadable=lambda: ())
    known = index.known(Pod("shop", "cart", "uid-1", {}, {}, (), (), running=True, ips=(str(ADDRESS),)))
    assert isinstance(known, Known)
    assert (known.names, known.by_runtime, known.elsewhere) == ((), "", path)
    assert [each.container_id for each in index.setups] == ["id-1"]


@pytest.mark.parametrize("has_result", [True, False])  # written when its ADD has succeeded, not before
def test_a_later_pod_with_the_same_address_is_not_mistaken_for_it(tmp_path: Path, has_result: bool) -> None:
    path = f"{tmp_path}/cni-other"
    other = Sandbox("id-2", "bank", "till", "uid-2", path, path, (ADDRESS,), "k8s", True, 2000.0)
    known = known_of_one_whose_netns_is_gone(tmp_path, *([other] if has_result else []))
    assert isinstance(known, Known)
    found = look(tmp_path, known)
    assert found.unknown.endswith(f"{tmp_path}/cni-gone, which its network's result names, is gone")


MINE, OTHERS = (f"{number:08d}-0000-4000-8000-000000000000" for number in (1, 2))


def test_a_process_number_that_went_to_another_pod_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where netns are those of the node's processes: a number is free again as soon as its process has ended."""
    monkeypatch.setattr(process_netns, "FRESH", 60.0)
    process = tmp_path / "proc" / "4711"
    (process / "ns").mkdir(parents=True)
    files, known = ProcessNetns(process.parent), Known((), "", (ADDRESS,), frozenset(), "", MINE)

    def is_proven() -> bool:
        with files.proven(known):
            return True

    def runs_in(uid: str) -> None:
        (process / "cgroup").write_text(f"0::/kubepods.slice/kubepods-pod{uid.replace('-', '_')}.slice/cri-1.scope\n")

    with Netns(tmp_path / "cni-other") as netns, ThreadPoolExecutor(1) as worker:
        for step in STEPS:
            subprocess.run(["/usr/bin/nsenter", f"--net={netns.path}", "/sbin/ip", *step.split()], check=True)
        (process / "ns" / "net").symlink_to(netns.path)
        runs_in(MINE)
        assert worker.submit(is_proven).result()
        runs_in(OTHERS)
        with pytest.raises(UnprovenError, match=f"has {ADDRESS}"):
            worker.submit(is_proven).result()
