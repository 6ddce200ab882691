"""With repairMode delete each running pod without redirect is counted and named at once, whoever is deleted first (F35)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from installer.config.desired import DesiredState
from installer.config.settings import parse_settings
from installer.config.value_types import RepairMode
from installer.host.in_force import InForce
from installer.repair import deletions, pod_repair
from plugin.backend import Backend, Capability
from plugin.pod import Pod
from tests.plugin.conftest import manifest
from tests.repair.running import Pods, running
from tests.repair.test_bypassed import Told
from tests.repair.test_families import STEPS, has, run_in
from tests.support.netns import Netns
from tests.support.wait import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.kernel

BARE = ("bare-1", "bare-2", "bare-3", "bare-4")
OWNED = ("owned-1", "owned-2")
WITHOUT_CONTROLLER = "no controller would start it again; delete it by hand"


class Cluster(Told):
    """Deletes the pods that a controller has made, as the agent's own does."""

    async def delete_pod(self, pod: Pod) -> str:
        if pod.name in BARE:
            return WITHOUT_CONTROLLER
        return await super().delete_pod(pod)


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Pods]:
    """Running mesh pods without rules, those that nobody would start again first."""
    made = Pods()
    with ExitStack() as ending:
        for number, name in enumerate((*BARE, *OWNED), 1):
            netns, address = ending.enter_context(Netns(tmp_path / name)), f"10.0.0.{number}"
            for step in STEPS:
                run_in(netns, "ip", *step.split())
            has(netns, address)
            made.append(replace(Pod.from_manifest(manifest(name)), running=True, ips=(address,)))
        yield made


@pytest.mark.slow
async def test_pods_that_cannot_be_deleted_hold_up_no_other(
    pods: Pods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletions, "DELETE_EVERY", 3600.0)
    monkeypatch.setattr(pod_repair, "CHECK_EVERY", 0.1)
    cluster = Cluster()
    settings = replace(parse_settings(), repair_mode=RepairMode.DELETE)
    in_force = InForce(DesiredState(settings), capability=Capability(Backend.NFT))
    with ThreadPoolExecutor(1) as workers:
        async with running(pods, in_force, workers, tmp_path, cluster) as repair:
            await eventually(lambda: repair.unredirected == len(pods), 10, "all are counted")
            await eventually(lambda: cluster.deleted, 30, "one that a controller starts again is deleted")
            first, second = cluster.deleted[0], ({*OWNED} - {*cluster.deleted}).pop()
            said = {note.partition(": ")[0]: note for note in repair.notes}
            assert said[f"pod shop/{first}"].endswith("deleted so that its controller recreates it")
            assert said[f"pod shop/{second}"].endswith("; it is deleted when its turn comes")
            for name in BARE:
                await eventually(
                    lambda name=name: any(name in each and WITHOUT_CONTROLLER in each for each in repair.notes),  # type: ignore[misc]
                    10,
                    "it says why it is not",
                )
            assert cluster.deleted == [first], "the next one has to wait"
            monkeypatch.setattr(repair._deletions, "next_at", 0.0)
            for each in repair._running:
                each.again = 0.0
            await eventually(lambda: cluster.deleted == [first, second], 10, "until its turn comes")
    assert repair.outcomes["Deleted"] == len(OWNED)
    assert repair.outcomes["NotRedirected"] <= len(pods) + len(OWNED), (
        "a pod counts again only when its outcome changes"
    )
    assert ("NotRedirected", True) in {(reason, warning) for reason, _, warning in cluster.events}
