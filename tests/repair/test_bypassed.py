"""A running pod whose netns redirects IPv4 alone while its IPv6 must be redirected counts as unredirected (F38)."""

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
from plugin.redirect import Family
from tests.plugin.conftest import manifest
from tests.repair.running import Pods, running
from tests.repair.test_families import STEPS, V4, V6, has, redirect, run_in
from tests.support.netns import Netns
from tests.support.wait import eventually

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.kernel

PART = f"its network namespace redirects only a part of its traffic: {V6} bypasses its sidecar"


class Told:
    """Takes what would be said and done at the API server."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, bool]] = []
        self.deleted: list[str] = []

    def record(self, _: Pod, reason: str, note: str, *, warning: bool) -> None:
        self.events.append((reason, note, warning))

    async def delete_pod(self, pod: Pod) -> str:
        self.deleted.append(pod.name)
        return ""

    async def confirm(self, _: Pod) -> str:
        return ""

    async def handler_of(self, _: str) -> str:
        return ""


@pytest.mark.parametrize("mode", RepairMode)
async def test_it_is_named_in_status_and_event_and_deleted_only_on_request(tmp_path: Path, mode: RepairMode) -> None:
    told = Told()
    settings = replace(parse_settings(), repair_mode=mode)
    in_force = InForce(DesiredState(settings), capability=Capability(Backend.NFT))
    pods = Pods([replace(Pod.from_manifest(manifest("cart")), running=True, ips=(V6, V4))])
    with Netns(tmp_path / "cni-1") as netns, ThreadPoolExecutor(1) as workers:
        for step in STEPS:
            run_in(netns, "ip", *step.split())
        has(netns, V4, V6)
        redirect(netns, Backend.NFT, Family.V4)
        before = netns.rules()
        async with running(pods, in_force, workers, tmp_path, told) as repair:
            await eventually(lambda: repair.redirected is not None and told.events, 10, "it is looked at")
        deleted = mode is RepairMode.DELETE
        assert told.deleted == (["cart"] if deleted else [])
        ((reason, note, warning),) = told.events
        assert (reason, warning) == ("Deleted" if deleted else "NotRedirected", True)
        assert note == f"{PART}; {'deleted' if deleted else 'delete it'} so that its controller recreates it"
        assert repair.notes == [f"pod shop/cart: {note}"]
        assert (repair.unredirected, repair.redirected) == (1, 0)
        assert netns.rules() == before
