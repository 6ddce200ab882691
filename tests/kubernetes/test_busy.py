"""An API server that has too much to do is left alone for as long as it says, and heard of all the same (F30)."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from installer.kube.credentials import credentials
from installer.pods.cluster import NodePods
from plugin.pod import PodsUnavailable
from tests.kubernetes.busy import BusyServer
from tests.kubernetes.conftest import SOON, Node
from tests.support.wait import eventually

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.apiserver

REFUSED = 6  # requests
RETRY_AFTER = 3  # seconds


async def test_retry_after_is_obeyed(node: Node, kubeconfig: Path, tmp_path: Path) -> None:
    node.start_pod("waits")
    info = credentials(kubeconfig)
    async with BusyServer(info.server, info.as_ssl_context(), refuses=REFUSED, retry_after=RETRY_AFTER) as server:
        pods, stop = NodePods(node.name, server.kubeconfig(kubeconfig, tmp_path / "config")), asyncio.Event()
        running = asyncio.create_task(pods.run(stop))
        try:
            await eventually(lambda: server.seen, SOON, "it is asked")
            with pytest.raises(PodsUnavailable, match="answered 429: the API server is overloaded"):
                await pods.find("default", "not-heard-of", "a-uid")
            await eventually(lambda: pods.known, SOON, "the agent knows its pods")
            assert pods.count == 1
        finally:
            stop.set()
            async with asyncio.timeout(SOON):
                await running
    pauses = [
        following - when
        for asked in server.seen.values()
        for (when, status), (following, _) in pairwise(asked)
        if status == 429
    ]
    assert pauses
    assert min(pauses) >= RETRY_AFTER - 0.1
    assert sum(status == 429 for asked in server.seen.values() for _, status in asked) == REFUSED
