"""An agent that is told to stop ends by itself before the kubelet would kill it, whatever hangs."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from installer.agent import shutdown
from plugin import wire
from tests.kubernetes.conftest import CHART, NAMESPACE, SOON, entry, untouched
from tests.support.freeze import frozen
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kubernetes.conftest import Node
    from tests.support.agent import AgentProcess
    from tests.support.cluster import Cluster

KUBELET = 30.0  # seconds
CUT_OFF = "not all parts ended in time"
LONG = 120.0  # seconds that a busy machine may take for it: the agent's own clock counts, not ours

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]


def test_the_steps_of_the_shutdown_share_one_budget_within_the_kubelets() -> None:
    steps = (shutdown.ASKED, shutdown.TAKEN_OUT, shutdown.REPORTED, shutdown.DRAINED, shutdown.STOP_WITHIN)
    assert [*steps] == sorted(set(steps))
    assert shutdown.STOP_WITHIN <= 25
    text = (CHART / "templates" / "daemonset.yaml").read_text()
    (line,) = [each for each in text.splitlines() if "terminationGracePeriodSeconds" in each]
    assert yaml.safe_load(line)["terminationGracePeriodSeconds"] == KUBELET


@contextmanager
def frozen_api_server(cluster: Cluster) -> Iterator[None]:
    """Have the API server take connections and answer none."""
    pid = cluster.pids["kube-apiserver"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def ended(agent: AgentProcess) -> tuple[int, str]:
    """Tell it to stop, wait until it has ended by itself, and return its exit status and log."""
    status = agent.stop(within=LONG)
    assert status >= 0, f"killed by signal {-status}"
    return status, agent.log.read_text()


def test_the_agent_ends_while_the_api_server_hangs(cluster: Cluster, running: AgentProcess) -> None:
    with frozen_api_server(cluster):
        status, log = ended(running)
    assert status == 0, log
    assert CUT_OFF not in log
    assert entry(running), log


def test_the_agent_ends_while_the_api_server_hangs_after_a_removal(
    cluster: Cluster, node: Node, running: AgentProcess
) -> None:
    cluster.kubectl("delete", "daemonset", "istio-cni-node", f"--namespace={NAMESPACE}")
    assert running.process
    running.process.send_signal(signal.SIGTERM)
    until(lambda: untouched(running), SOON, "all is taken out")
    with frozen_api_server(cluster):
        status, log = ended_by_itself(running)
    assert status == 0, log
    assert CUT_OFF not in log


def ended_by_itself(agent: AgentProcess) -> tuple[int, str]:
    assert agent.process
    until(lambda: agent.process and agent.process.poll() is not None, LONG, "it has ended by itself")
    return ended(agent)


def test_the_agent_ends_with_clients_that_send_or_read_nothing(running: AgentProcess) -> None:
    with ExitStack() as clients:
        for number in range(50):
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(running.socket))
            client.sendall(wire.frame(wire.REQUEST, b"x" * 100)[: number % 20])
        for _ in range(20):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", running.port)))
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 2000)
        status, log = ended(running)
    assert status == 0, log
    assert entry(running), log


def test_the_agent_ends_with_all_threads_hanging(running: AgentProcess) -> None:
    assert running.process
    pid = running.process.pid
    with frozen(pid) as threads:
        assert len(threads.threads) >= 3, "those that enter pods' netns, that of the reconciler, kopf's"
        assert running.get("/healthz")[0] == 200, (
            "a thread that was stopped holds the interpreter: not what is tried here"
        )
        running.process.send_signal(signal.SIGTERM)

        def has_ended() -> bool:
            threads.reap()
            assert running.process
            return running.process.poll() is not None

        until(has_ended, LONG, "it has ended by itself")
    status, log = ended(running)
    assert status == 1, log
    assert "Timeout (0:00:25)!" in log, "and what hangs"
    assert entry(running), log
    assert Path(running.bin_dir / "istio-cni").exists()
