"""A redirect that was there when the pod started, and is gone: found without any event, and dealt with like a missing one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from installer.aio import Changes
from installer.config.desired import DesiredState
from installer.config.settings import parse_settings
from installer.host.in_force import InForce
from installer.repair import pod_repair
from plugin.backend import Backend, Capability
from plugin.handler import Outcome
from plugin.pod import Pod
from plugin.redirect import Family
from tests.plugin.conftest import manifest
from tests.repair.running import Pods, running
from tests.repair.test_bypassed import Told
from tests.repair.test_families import STEPS, has, redirect, run_in
from tests.support.netns import Netns
from tests.support.wait import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from installer.repair.pod_repair import PodRepair

pytestmark = pytest.mark.kernel

ADDRESS, LATER = "10.0.0.7", "10.0.0.8"
TAKEN_AWAY = "its network namespace had one when it started, and a process or plugin has taken it away since"


def joined(netns: Netns, address: str) -> Netns:
    for step in STEPS:
        run_in(netns, "ip", *step.split())
    has(netns, address)
    return netns


def add(repair: PodRepair, pod: Pod) -> None:
    """Have it know of an ADD that was answered with a redirect."""
    repair.add(
        Outcome("ADD", pod.namespace, pod.name, "c1", "redirect", "redirect", "", 0, 0.1, pod_uid=pod.uid),
    )


@pytest.fixture
def pods() -> Pods:
    return Pods([replace(Pod.from_manifest(manifest("cart")), running=True, ips=(ADDRESS,))])


@pytest.fixture
def in_force() -> InForce:
    return InForce(DesiredState(parse_settings()), capability=Capability(Backend.NFT))


async def test_rules_that_were_taken_away_are_found_and_written_again(
    pods: Pods, in_force: InForce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_repair, "CHECK_EVERY", 0.1)
    monkeypatch.setattr(pod_repair, "LOOK_AGAIN", 0.5)
    told = Told()
    with Netns(tmp_path / "cni-1") as netns, ThreadPoolExecutor(1) as workers:
        redirect(joined(netns, ADDRESS), Backend.NFT, Family.V4)
        async with running(pods, in_force, workers, tmp_path, told) as repair:
            add(repair, pods[0])
            await eventually(lambda: repair.redirected == 1, 10, "it counts")
            run_in(netns, "nft", "flush", "ruleset")
            await eventually(lambda: "redirect to :15001" in netns.rules(), 10, "its rules are back")
            await eventually(lambda: told.events, 10, "an Event tells of it")
            assert (repair.redirected, repair.unredirected, repair.repaired) == (1, 0, 1)
    ((reason, note, warning),) = told.events
    assert (reason, warning) == ("Redirected", False)
    assert TAKEN_AWAY in note


async def test_a_netns_that_cannot_be_seen_counts_as_at_its_start(
    pods: Pods, in_force: InForce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_repair, "CHECK_EVERY", 0.02)
    monkeypatch.setattr(pod_repair, "LOOK_AGAIN", 0.05)
    looked = 0

    async def counted(self: PodRepair, *given: Any) -> Any:
        nonlocal looked
        looked += 1
        return await inspect(self, *given)

    inspect = pod_repair.PodRepair._inspect
    monkeypatch.setattr(pod_repair.PodRepair, "_inspect", counted)
    told = Told()
    with ThreadPoolExecutor(1) as workers:
        async with running(pods, in_force, workers, tmp_path, told) as repair:
            add(repair, pods[0])
            await eventually(lambda: looked > 3, 10, "it is looked for")
            assert (repair.redirected, repair.unredirected, told.events) == (1, 0, [])


async def test_a_later_sandbox_of_which_the_runtime_keeps_no_record_is_inspected(
    pods: Pods, in_force: InForce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same pod got another network while the plugin was not in the chain; its address tells the two apart."""
    monkeypatch.setattr(pod_repair, "CHECK_EVERY", 0.1)
    changes = Changes()
    with ThreadPoolExecutor(1) as workers:
        async with running(pods, in_force, workers, tmp_path, Told(), changes=changes) as repair:
            add(repair, pods[0])
            await eventually(lambda: repair.redirected == 1, 10, "it counts")
            with Netns(tmp_path / "cni-2") as netns:
                joined(netns, LATER)
                pods[0] = replace(pods[0], ips=(LATER,))
                changes.notify()
                await eventually(lambda: "redirect to :15001" in netns.rules(), 10, "it is redirected there")
                await eventually(lambda: repair.repaired == 1, 10, "it is counted")
