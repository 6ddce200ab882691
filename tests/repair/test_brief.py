"""A pod that slips and soon ends is found as soon as the runtime has recorded its sandbox, not at the next check (F35)."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from installer.aio import Changes
from installer.config.desired import DesiredState
from installer.config.settings import parse_settings
from installer.config.value_types import RepairMode
from installer.host.cni_cache import Sandboxes
from installer.host.in_force import InForce
from installer.repair import pod_repair
from installer.repair.netns_proof import NetnsFiles
from installer.repair.node_sandboxes import NodeSandboxes
from plugin.backend import Backend, Capability
from plugin.handler import Outcome
from plugin.pod import Pod
from tests.plugin.conftest import manifest
from tests.repair.running import Pods, running
from tests.repair.test_bypassed import Told
from tests.repair.test_families import STEPS, V4, has, run_in
from tests.support.netns import Netns
from tests.support.wait import eventually

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.kernel


def made(folder: Path) -> Path:
    """Make the folder of the runtime's results."""
    results = folder / "results"
    results.mkdir()
    return results


def keep(results: Path, pod: Pod, container_id: str, netns: str = "") -> Path:
    """Write what libcni keeps of a pod's sandbox."""
    of = {"K8S_POD_NAMESPACE": pod.namespace, "K8S_POD_NAME": pod.name, "K8S_POD_UID": pod.uid}
    kept = {"kind": "cniCacheV1", "containerId": container_id, "ifName": "eth0", "networkName": "k8s", "config": ""}
    result = {"cniVersion": "1.0.0", "ips": [{"address": f"{V4}/24"}]}
    file = results / f"k8s-{container_id}-eth0"
    file.write_text(json.dumps(kept | {"cniArgs": [*of.items()], "netns": netns, "result": result}))
    return file


async def test_a_recorded_sandbox_is_looked_at_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_repair, "CHECK_EVERY", 3600.0)
    results = made(tmp_path)
    told, pods, pod = Told(), Pods(), Pod.from_manifest(manifest("job"))
    settings = replace(parse_settings(), repair_mode=RepairMode.REPORT)
    in_force = InForce(DesiredState(settings), capability=Capability(Backend.NFT))
    with Netns(tmp_path / "cni-1") as netns, ThreadPoolExecutor(1) as workers:
        for step in STEPS:
            run_in(netns, "ip", *step.split())
        has(netns, V4)
        async with running(pods, in_force, workers, tmp_path, told) as repair:
            await eventually(lambda: repair.redirected is not None, 10, "it has counted")
            pods.append(pod)  # it waits for its network, and has no address and no container yet
            keep(results, pod, "c1", str(netns.path))
            await eventually(lambda: told.events, 10, "an Event tells of it")
            pods.clear()
    ((reason, note, warning),) = told.events
    assert (reason, warning) == ("NotRedirected", True)
    assert note.startswith("it runs without its redirect")
    assert repair.outcomes["NotRedirected"] == 1


@pytest.mark.parametrize("outcome", ["redirect", "pass"])
async def test_a_sandbox_whose_add_was_answered_waits_for_the_next_check(tmp_path: Path, outcome: str) -> None:
    results, pod, changes = made(tmp_path), Pod.from_manifest(manifest("job")), Changes()
    sandboxes = NodeSandboxes(Sandboxes(tmp_path), NetnsFiles(tmp_path, tmp_path), changes)
    changed, at_once = changes.listen(), sandboxes.strangers.listen()

    async def looks_at_once() -> bool:
        """Wait until a change of the records is noticed."""
        async with asyncio.timeout(10):
            await changed.wait()
        seen = at_once.is_set()
        await sandboxes.update()
        changed.clear()
        at_once.clear()
        return seen

    await sandboxes.update()
    try:
        sandboxes.add(Outcome("ADD", pod.namespace, pod.name, "c1", outcome, None, "", 0, 0.1, pod_uid=pod.uid))
        keep(results, pod, "c1")
        assert not await looks_at_once()
        stranger = keep(results, pod, "c2")
        assert await looks_at_once()
        stranger.unlink()
        assert not await looks_at_once(), "it is known, and has gone"
        assert sandboxes.was_added(pod, "c1") == (outcome == "redirect")
    finally:
        sandboxes.close()
