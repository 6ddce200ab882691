"""A pod that is being deleted and still runs is counted and named; it is not deleted again, and waits for no turn (F35)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from installer.config.desired import DesiredState
from installer.config.settings import parse_settings
from installer.config.value_types import RepairMode
from installer.host.in_force import InForce
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


@pytest.mark.parametrize("mode", RepairMode)
async def test_a_pod_that_somebody_has_deleted_is_named_and_left_alone(tmp_path: Path, mode: RepairMode) -> None:
    told = Told()
    in_force = InForce(DesiredState(replace(parse_settings(), repair_mode=mode)), capability=Capability(Backend.NFT))
    pods = Pods([replace(Pod.from_manifest(manifest("cart")), running=True, terminating=True, ips=(V4,))])
    with Netns(tmp_path / "cni-1") as netns, ThreadPoolExecutor(1) as workers:
        for step in STEPS:
            run_in(netns, "ip", *step.split())
        has(netns, V4)
        async with running(pods, in_force, workers, tmp_path, told) as repair:
            await eventually(lambda: told.events, 10, "an Event tells of it")
            assert repair.unredirected == 1
        assert netns.rules() == "", "nothing says that its address is not another pod's by now"
    assert told.events == [("NotRedirected", "it runs without its redirect, and is being deleted", True)]
    assert not told.deleted
