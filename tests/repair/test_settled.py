"""While nothing changes there is no check, and none goes through pods without need: a node rests most of the time."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from installer.aio import Changes
from installer.config.desired import DesiredState
from installer.config.settings import parse_settings
from installer.host import inotify
from installer.host.in_force import InForce
from installer.repair import pod_repair
from installer.repair.node_sandboxes import NodeSandboxes
from installer.repair.pod_repair import PodRepair
from plugin.backend import Backend, Capability
from plugin.handler import Outcome
from plugin.pod import Pod
from tests.plugin.conftest import manifest
from tests.repair.running import Pods, running
from tests.support.wait import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from installer.repair.running_pods import RunningPod

pytestmark = pytest.mark.kernel

NAMES = ("cart", "web", "db")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count checks, which come often here, and pods looked at."""
    counts: Counter[str] = Counter()
    update, check_pod = NodeSandboxes.update, PodRepair._check_pod

    async def counted_update(self: NodeSandboxes) -> None:
        counts["checks"] += 1
        await update(self)

    async def counted_check(self: PodRepair, of: RunningPod) -> None:
        counts["pods"] += 1
        await check_pod(self, of)

    monkeypatch.setattr(pod_repair, "CHECK_EVERY", 0.01)
    monkeypatch.setattr(NodeSandboxes, "update", counted_update)
    monkeypatch.setattr(PodRepair, "_check_pod", counted_check)
    return counts


async def test_settled_pods_are_looked_at_again_only_after_a_change(tmp_path: Path, counted: Counter[str]) -> None:
    in_force = InForce(DesiredState(parse_settings()), capability=Capability(Backend.NFT))
    pods = Pods([replace(Pod.from_manifest(manifest(name)), running=True) for name in NAMES])
    changes = Changes()
    with ThreadPoolExecutor(1) as workers:
        async with running(pods, in_force, workers, tmp_path, changes=changes) as repair:

            async def rest() -> None:
                """Wait until it checks no more; one more check then goes through no pod."""
                async with asyncio.timeout(120):
                    at = -1
                    while at != counted["checks"]:
                        at = counted["checks"]
                        await asyncio.sleep(0.5)
                looked_at = counted["pods"]
                changes.notify()
                await eventually(lambda: counted["checks"] > at, 10, "it checks again")
                assert counted["pods"] == looked_at

            def add(pod: Pod) -> None:
                added = Outcome("ADD", pod.namespace, pod.name, "", "redirect", "redirect", "", 0, 0.1, pod_uid=pod.uid)
                repair.add(replace(added, container_id=pod.name))

            for pod in pods:
                add(pod)
            await eventually(lambda: repair.redirected == len(NAMES), 10, "they are counted")
            await rest()

            new = replace(Pod.from_manifest(manifest("new")), running=True)
            add(new)
            pods.append(new)
            changes.notify()
            await eventually(lambda: repair.redirected == len(NAMES) + 1, 10, "the new one is counted")
            await rest()

            pods[0] = replace(pods[0], running=False)
            changes.notify()
            await eventually(lambda: repair.redirected == len(NAMES), 10, "one has ended")
            await rest()

            args = [["K8S_POD_NAMESPACE", pods[0].namespace], ["K8S_POD_NAME", pods[0].name]]
            recorded = {"kind": "cniCacheV1", "containerId": pods[0].name, "ifName": "eth0", "cniArgs": args}
            (tmp_path / "results").mkdir()
            (tmp_path / "results" / "k8s-1-eth0").write_text(json.dumps(recorded))
            await eventually(lambda: repair.redirected == len(NAMES) + 1, 10, "its new sandbox is noticed untold")

            looked_at = counted["pods"]
            settings = replace(in_force.settings, exclude_namespaces=("elsewhere",))
            in_force.desired = DesiredState(settings)
            changes.notify()
            await eventually(lambda: counted["pods"] >= looked_at + len(NAMES), 10, "new settings concern all")


async def test_a_pod_that_is_not_settled_is_looked_at_again(tmp_path: Path, counted: Counter[str]) -> None:
    in_force = InForce(DesiredState(parse_settings()), capability=Capability(Backend.NFT))
    pods = Pods([replace(Pod.from_manifest(manifest(name)), running=True) for name in NAMES])
    with ThreadPoolExecutor(1) as workers:
        async with running(pods, in_force, workers, tmp_path) as repair:
            await eventually(lambda: counted["pods"] > 10 * len(NAMES), 10, "they are looked at again and again")
            assert repair.redirected == 0


async def test_without_inotify_the_sandboxes_are_polled(
    tmp_path: Path, counted: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left() -> None:
        raise OSError(24, "inotify instance limit reached")

    monkeypatch.setattr(inotify, "InotifyFD", none_left)
    in_force = InForce(DesiredState(parse_settings()), capability=Capability(Backend.NFT))
    with ThreadPoolExecutor(1) as workers:
        async with running(Pods(), in_force, workers, tmp_path):
            await eventually(lambda: counted["checks"] > 100, 20, "it checks again and again")


async def test_no_further_pod_is_looked_at_once_it_is_told_to_stop(
    tmp_path: Path, counted: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_force = InForce(DesiredState(parse_settings()), capability=Capability(Backend.NFT))
    pods = Pods([replace(Pod.from_manifest(manifest(name)), running=True) for name in NAMES])
    under_way, go_on = asyncio.Event(), asyncio.Event()

    async def slow_check(_: PodRepair, __: RunningPod) -> None:
        counted["pods"] += 1
        under_way.set()
        await go_on.wait()

    monkeypatch.setattr(PodRepair, "_check_pod", slow_check)
    with ThreadPoolExecutor(1) as workers:
        async with running(pods, in_force, workers, tmp_path) as repair:
            await asyncio.wait_for(under_way.wait(), 10)
            asyncio.get_running_loop().call_later(0.1, go_on.set)
        assert counted["pods"] == 1, f"of {len(NAMES)} pods"
        assert repair.redirected is None
