"""While nothing changes, a check goes through no pod: a node has a hundred, and rests most of the time."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from installer.config.desired import DesiredState
from installer.config.settings import parse_settings
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
    with ThreadPoolExecutor(1) as workers:
        async with running(pods, in_force, workers, tmp_path) as repair:

            async def rest() -> None:
                """Wait for checks that go through no pod."""
                at = counted["checks"]
                await eventually(lambda: counted["checks"] > at + 2, 10, "it has checked all")
                at, looked_at = counted["checks"], counted["pods"]
                await eventually(lambda: counted["checks"] > at + 10, 10, "it checks again and again")
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
            await eventually(lambda: repair.redirected == len(NAMES) + 1, 10, "the new one is counted")
            await rest()

            pods[0] = replace(pods[0], running=False)
            await eventually(lambda: repair.redirected == len(NAMES), 10, "one has ended")
            await rest()

            looked_at = counted["pods"]
            settings = replace(in_force.settings, exclude_namespaces=("elsewhere",))
            in_force.desired = DesiredState(settings)
            await eventually(lambda: counted["pods"] >= looked_at + len(NAMES), 10, "new settings concern all")
            await rest()


async def test_a_pod_that_is_not_settled_is_looked_at_again(tmp_path: Path, counted: Counter[str]) -> None:
    in_force = InForce(DesiredState(parse_settings()), capability=Capability(Backend.NFT))
    pods = Pods([replace(Pod.from_manifest(manifest(name)), running=True) for name in NAMES])
    with ThreadPoolExecutor(1) as workers:
        async with running(pods, in_force, workers, tmp_path) as repair:
            await eventually(lambda: counted["pods"] > 10 * len(NAMES), 10, "they are looked at again and again")
            assert repair.redirected == 0
