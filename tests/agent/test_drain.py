"""An agent on a machine that was suspended, and one that is told to stop while a part of it hangs."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.plugin.conftest import manifest
from tests.support.agent import AgentProcess
from tests.support.netns import Netns
from tests.support.ondisk import PRIMARY
from tests.support.wait import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.ondisk import NodeOnDisk

pytestmark = pytest.mark.kernel

HANGING = """
import asyncio, runpy, sys
from installer.agent import shutdown
shutdown.DRAINED, shutdown.STOP_WITHIN = 1.0, 300.0
from installer.repair.pod_repair import PodRepair
async def hang(self, stop):
    await asyncio.Event().wait()
PodRepair.run = hang
sys.argv = ["install-cni", *sys.argv[4:]]
runpy.run_module("installer", run_name="__main__")
"""


def test_a_part_that_does_not_end_is_left_after_the_time_for_it(node: NodeOnDisk, tmp_path: Path) -> None:
    (tmp_path / "pods").mkdir()
    options: dict[str, str | Path] = {"pods-from": tmp_path / "pods"}
    prefix = [sys.executable, "-c", HANGING]
    with AgentProcess(tmp_path, conf_dir=node.conf, bin_dir=node.bin, options=options, prefix=prefix) as agent:
        agent.ready()
        assert agent.stop(within=60) == 0
    assert "not all parts ended in time; exiting with work under way" in agent.log.read_text()
    assert (node.bin / "istio-cni").exists()


@pytest.mark.parametrize("offset", ["--boottime=864000", "--monotonic=864000"])
async def test_a_machine_that_was_suspended_for_days_loses_nothing(
    node: NodeOnDisk, tmp_path: Path, offset: str
) -> None:
    """The clocks of a machine that has slept differ by that: the agent goes by one of them alone."""
    (tmp_path / "pods").mkdir()
    options: dict[str, str | Path] = {"pods-from": tmp_path / "pods"}
    (tmp_path / "pods" / "web.json").write_text(json.dumps({"apiVersion": "v1", "kind": "Pod"} | manifest()))
    prefix = ["/usr/bin/unshare", "--time", offset, "--"]
    conflist = node.conf / "10-primary.conflist"
    with AgentProcess(tmp_path, conf_dir=node.conf, bin_dir=node.bin, options=options, prefix=prefix) as agent:
        assert agent.ready().startswith("ready:")
        assert agent.process is not None
        assert os.readlink(f"/proc/{agent.process.pid}/ns/time") != os.readlink("/proc/self/ns/time")  # noqa: PTH115
        with Netns(tmp_path / "netns") as netns:
            assert (await agent.add(netns, "shop", "web")).status == 0
        complete = conflist.read_bytes()
        conflist.write_bytes(PRIMARY)
        until(lambda: conflist.read_bytes() == complete, 15, "it is repaired")
        agent.process.send_signal(signal.SIGSTOP)
        conflist.write_bytes(PRIMARY)
        agent.process.send_signal(signal.SIGCONT)
        until(lambda: conflist.read_bytes() == complete, 15, "it is repaired again")
        until(lambda: agent.get("/readyz")[0] == 200, 15, "it is ready")
