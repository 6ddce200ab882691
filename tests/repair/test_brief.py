"""A pod that slips and soon ends is found as soon as the runtime has recorded its sandbox, not at the next check (F35)."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from installer.config.desired import DesiredState
from installer.config.settings import parse_settings
from installer.config.value_types import RepairMode
from installer.host.in_force import InForce
from installer.repair import pod_repair
from plugin.backend import Backend, Capability
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


async def test_a_recorded_sandbox_is_looked_at_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_repair, "CHECK_EVERY", 3600.0)
    results = tmp_path / "results"
    results.mkdir()
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
            of = {"K8S_POD_NAMESPACE": pod.namespace, "K8S_POD_NAME": pod.name, "K8S_POD_UID": pod.uid}
            result = {"cniVersion": "1.0.0", "ips": [{"address": f"{V4}/24"}]}
            kept: dict[str, object] = {
                "kind": "cniCacheV1",
                "containerId": "c1",
                "ifName": "eth0",
                "networkName": "k8s",
                "config": "",
            }
            kept |= {"cniArgs": [*of.items()], "netns": str(netns.path), "result": result}
            (results / "k8s-c1-eth0").write_text(json.dumps(kept))
            await eventually(lambda: told.events, 10, "an Event tells of it")
            pods.clear()
    ((reason, note, warning),) = told.events
    assert (reason, warning) == ("NotRedirected", True)
    assert note.startswith("it runs without its redirect")
    assert repair.outcomes["NotRedirected"] == 1
