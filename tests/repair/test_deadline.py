"""A pod whose netns cannot be inspected in time is reported, and those after it get their turn (F37)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from installer.config.desired import DesiredState
from installer.config.settings import parse_settings
from installer.host.in_force import InForce
from installer.repair import pod_repair
from plugin.pod import Pod
from tests.plugin.conftest import manifest
from tests.repair.running import Pods, running
from tests.support.wait import eventually

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.kernel


async def test_an_inspection_that_hangs_does_not_hold_up_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_repair, "DEADLINE", 0.1)
    monkeypatch.setattr(pod_repair, "PATIENCE", 0.0)
    pods = Pods(
        replace(Pod.from_manifest(manifest(name)), running=True, ips=("10.0.0.7",)) for name in ("cart", "till")
    )
    in_force, hanging = InForce(DesiredState(parse_settings())), threading.Event()
    with ThreadPoolExecutor(1) as workers:
        workers.submit(hanging.wait, 60)
        async with running(pods, in_force, workers, tmp_path) as repair:
            try:
                await eventually(lambda: len(repair.notes) == 2, 10, "both are reported")
                assert all("was not inspected within" in each for each in repair.notes)
                assert repair.unredirected == 2
            finally:
                hanging.set()
