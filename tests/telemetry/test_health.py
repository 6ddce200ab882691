"""Health over real HTTP: readiness line by line, and the metrics."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import aiohttp
import pytest

from installer.agent.metrics import LineCounts, Metrics, PodCounts
from installer.config.desired import DesiredState
from installer.config.settings import parse_settings
from installer.config.value_types import HostPort
from installer.fleet.state import Condition, NodeState, Repair
from installer.host.in_force import InForce
from installer.telemetry.health import Health
from plugin.handler import Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.pure


def outcome(command: str, which: str, seconds: float, row: str | None = None) -> Outcome:
    return Outcome(command, "shop", "web", "0", which, row, "why", 0, seconds)


class Agent:
    """The health server's inputs, and its address."""

    def __init__(self) -> None:
        self.conditions = [Condition("installed", None), Condition("pods", None)]
        self.in_force = InForce(DesiredState(parse_settings({"node_name": "node1"})))
        self.metrics = Metrics(
            version="1.2.3",
            in_force=self.in_force,
            pods=lambda: PodCounts(known=7, unredirected=2),
            log_lines=lambda: LineCounts(2, 3),
        )
        self.health = Health(lambda: self.conditions, self.metrics.registry)
        self.address = HostPort("", 0)

    async def get(self, path: str) -> tuple[int, str]:
        """Send a request as the kubelet does."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{self.address.host}:{self.address.port}{path}") as answer,
        ):
            return answer.status, await answer.text()


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    made = Agent()
    made.address = await made.health.start(HostPort("127.0.0.1", 0))
    yield made
    await made.health.stop()


async def test_port_0_listens_on_a_free_port_and_returns_it(agent: Agent) -> None:
    assert agent.address.port > 0
    assert await agent.get("/healthz") == (200, "ok\n")


async def test_a_port_in_use_raises_oserror(agent: Agent) -> None:
    second = Agent()
    with pytest.raises(OSError, match="in use"):
        await second.health.start(agent.address)
    await second.health.stop()


async def test_readyz_lists_each_condition_with_its_reason(agent: Agent) -> None:
    assert await agent.get("/readyz") == (200, "installed: ok\npods: ok\n")
    agent.conditions[0] = Condition("installed", "/etc/cni/net.d: No such file or directory")
    assert await agent.get("/readyz") == (503, "installed: /etc/cni/net.d: No such file or directory\npods: ok\n")


async def test_readyz_escapes_a_file_name_that_is_not_utf8(agent: Agent) -> None:
    agent.conditions[0] = Condition("installed", os.fsdecode(b"10-\xff.conflist: No such file or directory"))
    status, text = await agent.get("/readyz")
    assert status == 503
    assert r"10-\udcff.conflist: No such" in text


async def test_metrics_count_events_and_show_the_current_state(agent: Agent) -> None:
    agent.metrics.request(outcome("ADD", "redirect", 0.0042, "redirect"))
    agent.metrics.request(outcome("ADD", "pass", 0.0007, "excluded namespace"))
    agent.metrics.request(outcome("CHECK", "error", 0.002))
    status, before = await agent.get("/metrics")
    agent.in_force.state = NodeState(
        installed=True, reason=None, repairs=3, last_repair=Repair(1000.5, "x"), skipped=(("x.conf", "empty"),)
    )
    _, after = await agent.get("/metrics")
    assert status == 200
    for line in (
        'istio_cni_build_info{version="1.2.3"} 1.0',
        "istio_cni_installed 0.0",
        "istio_cni_repairs_total 0.0",
        'istio_cni_requests_total{command="ADD",outcome="redirect"} 1.0',
        'istio_cni_requests_total{command="CHECK",outcome="error"} 1.0',
        'istio_cni_decisions_total{row="excluded namespace"} 1.0',
        'istio_cni_add_duration_seconds_bucket{le="0.003",outcome="redirect"} 0.0',
        'istio_cni_add_duration_seconds_bucket{le="0.005",outcome="redirect"} 1.0',
        'istio_cni_add_duration_seconds_count{outcome="pass"} 1.0',
        "istio_cni_pods 7.0",
        "istio_cni_dropped_log_lines_total 2.0",
        "istio_cni_suppressed_log_lines_total 3.0",
    ):
        assert line in before.splitlines()
    assert "process_resident_memory_bytes" in before
    for line in (
        "istio_cni_installed 1.0",
        "istio_cni_repairs_total 3.0",
        "istio_cni_last_repair_timestamp_seconds 1000.5",
        "istio_cni_skipped_files 1.0",
    ):
        assert line in after.splitlines()
