"""A pod whose netns cannot be inspected in time is reported once, and those after it get their turn (F37)."""

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
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path
    from typing import Any

pytestmark = pytest.mark.kernel


class Counting(ThreadPoolExecutor):
    """One worker that counts what it is given."""

    def __init__(self) -> None:
        super().__init__(1)
        self.given = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Take it."""
        self.given += 1
        return super().submit(fn, *args, **kwargs)


def two() -> Pods:
    return Pods(
        replace(Pod.from_manifest(manifest(name)), running=True, ips=("10.0.0.7",)) for name in ("cart", "till")
    )


async def test_an_inspection_that_hangs_does_not_hold_up_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_repair, "DEADLINE", 0.1)
    monkeypatch.setattr(pod_repair, "PATIENCE", 0.0)
    in_force, hanging = InForce(DesiredState(parse_settings())), threading.Event()
    with Counting() as workers:
        workers.submit(hanging.wait, 60)
        async with running(two(), in_force, workers, tmp_path) as repair:
            try:
                await eventually(lambda: len(repair.notes) == 2, 10, "both are reported")
                assert all("was not inspected within" in each for each in repair.notes)
                assert repair.unredirected == 2
            finally:
                hanging.set()


async def test_what_the_last_look_has_shown_stays_while_there_is_no_time_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("DEADLINE", 0.1), ("PATIENCE", 0.0), ("AGAIN", 0.05), ("CHECK_EVERY", 0.05), ("SOON", 0.01)):
        monkeypatch.setattr(pod_repair, name, seconds)
    in_force, hanging = InForce(DesiredState(parse_settings())), threading.Event()
    with Counting() as workers:
        async with running(two(), in_force, workers, tmp_path) as repair:
            try:
                await eventually(lambda: len(repair.notes) == 2, 10, "both are reported")
                notes, outcomes = repair.notes, repair.outcomes.copy()
                assert all("its network namespace cannot be identified" in each for each in notes)
                workers.submit(hanging.wait, 60)
                before = workers.given
                await eventually(lambda: workers.given >= before + 2, 10, "the first one has waited for its time")
                assert repair.notes == notes
                assert repair.outcomes == outcomes
            finally:
                hanging.set()
