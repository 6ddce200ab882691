"""Hostile and broken requests on the agent's socket (F32): refused with a reason, and the agent continues."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from plugin import incoming, program, wire
from plugin import server as server_module
from plugin import workers as workers_module
from plugin.handler import Outcome
from plugin.session_replay import ReplaySession
from tests.plugin.conftest import Agent, KnownPods, calls, config, manifest, rules
from tests.support.call import reference
from tests.support.netns import Netns
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from plugin.pod import Pod
    from plugin.program import Programmed

pytestmark = pytest.mark.kernel


@pytest.fixture
async def served(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Agent]:
    monkeypatch.setattr(incoming, "SLOWEST_REQUEST", 0.5)
    async with agent.serving():
        yield agent


async def ask(agent: Agent, data: bytes, *descriptors: int, end: bool = False) -> dict[str, Any]:
    """Send bytes as they are, and read the CNI error that comes back."""

    def exchange() -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect(str(agent.socket))
            sent = socket.send_fds(client, [data], list(descriptors))
            if sent < len(data):
                client.sendall(data[sent:])
            if end:
                client.shutdown(socket.SHUT_WR)
            received = b""
            while chunk := client.recv(65536):
                received += chunk
            return received

    received = await asyncio.to_thread(exchange)
    kind, length = wire.head(received, wire.LARGEST_REQUEST)
    assert (kind, length, received[wire.HEAD]) == (wire.RESULT, len(received) - wire.HEAD, 1)
    error: dict[str, Any] = json.loads(received[wire.HEAD + 1 :])
    return error


BROKEN = {
    "another version": (b"\x02\x01\0\0\0\0", 6, "version 2"),
    "another kind": (wire.frame(wire.RESULT, b""), 6, "kind 3"),
    "too large": (bytes((1, 1)) + (1 << 31).to_bytes(4, "big"), 6, "at most"),
    "not this protocol": (b"GET / HTTP/1.1\r\n\r\n", 6, "version 71"),
    "empty": (wire.frame(wire.REQUEST, b""), 4, "CNI_"),
    "no variables": (wire.frame(wire.REQUEST, b"\0\0{}"), 4, "CNI_"),
    "no netns": (
        wire.frame(
            wire.REQUEST,
            wire.join(
                {b"CNI_COMMAND": b"ADD", b"CNI_CONTAINERID": b"x", b"CNI_NETNS": b"/x", b"CNI_IFNAME": b"eth0"}, b"{}"
            ),
        ),
        4,
        "no open netns",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_request_is_refused(served: Agent, case: str) -> None:
    data, code, word = BROKEN[case]
    error = await ask(served, data)
    assert error["code"] == code
    assert word in error["msg"]
    await still_serves(served)


@pytest.mark.parametrize("command", ["DEL", "GC", "VERSION", "add", "ADD\n", "ADD'; x", "X" * 300_000])
async def test_an_unknown_command_is_refused_and_adds_no_metric_label(
    served: Agent, pod_netns: Netns, command: str
) -> None:
    plugin = reference(served.socket.parent)
    variables = {
        name.encode(): value.encode() for name, value in calls(plugin, served, pod_netns.path, command).items()
    }
    data = wire.frame(wire.REQUEST, wire.join(variables, json.dumps(config(plugin, served)).encode()))
    netns = os.open(pod_netns.path, os.O_RDONLY)
    try:
        error = await ask(served, data, netns)
    finally:
        os.close(netns)
    assert (error["code"], error["msg"].count("X") < 50) == (4, True)
    assert f"CNI_COMMAND: saw {command[:40]!r}" in error["msg"]
    assert rules(pod_netns) == ""
    assert served.outcomes[-1].command == ""  # which is what its metric is labelled with


class Gated(KnownPods):
    """Pods that nobody finds before the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.asked = asyncio.Event(), asyncio.Event()

    async def find(self, namespace: str, name: str, uid: str | None, *, fresh: bool = False) -> Pod | None:
        self.asked.set()
        await self.open.wait()
        return await super().find(namespace, name, uid, fresh=fresh)


@pytest.fixture
def gate(agent: Agent) -> Gated:
    gate = Gated()
    gate.add(manifest())
    agent.pods = gate
    return gate


def asking(agent: Agent, netns: Path, **more: str) -> socket.socket:
    """Send an ADD as the plugin does, without reading the answer."""
    plugin = reference(agent.socket.parent)
    variables = {k.encode(): v.encode() for k, v in calls(plugin, agent, netns, **more).items()}
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(60)
    client.connect(str(agent.socket))
    descriptor = os.open(netns, os.O_RDONLY)
    stdin = json.dumps(config(plugin, agent)).encode()
    socket.send_fds(client, [wire.frame(wire.REQUEST, wire.join(variables, stdin))], [descriptor])
    os.close(descriptor)
    return client


def answer(client: socket.socket) -> int:
    """Wait for the answer: the exit status."""
    with client:
        received = b""
        while chunk := client.recv(65536):
            received += chunk
    while received[1] == wire.WORKING:
        received = received[wire.HEAD :]
    return received[wire.HEAD]


async def test_a_second_try_of_the_same_request_joins_the_first(agent: Agent, gate: Gated, pod_netns: Netns) -> None:
    async with agent.serving():
        first = asking(agent, pod_netns.path)
        await gate.asked.wait()
        first.close()  # as a client without an answer for a second does
        tries = [asking(agent, pod_netns.path) for _ in range(3)]
        other = asking(agent, pod_netns.path, CNI_CONTAINERID="another")
        await asyncio.sleep(0.2)
        gate.open.set()
        assert [await asyncio.to_thread(answer, each) for each in [*tries, other]] == [0] * 4
    assert [each.outcome for each in agent.outcomes] == ["redirect"] * 2
    assert "15006" in rules(pod_netns)


async def test_the_same_request_for_another_netns_is_a_new_request(
    agent: Agent, gate: Gated, pod_netns: Netns, tmp_path: Path
) -> None:
    async with agent.serving():
        with Netns(tmp_path / "other") as other:
            link = tmp_path / "link"
            link.symlink_to(pod_netns.path)
            first = asking(agent, link)
            await gate.asked.wait()
            link.unlink()
            link.symlink_to(other.path)
            second = asking(agent, link)
            await asyncio.sleep(0.2)
            gate.open.set()
            assert [await asyncio.to_thread(answer, each) for each in (first, second)] == [0, 0]
            assert "15006" in rules(other)
    assert "15006" in rules(pod_netns)
    assert len(agent.outcomes) == 2


async def test_a_redirected_pod_is_answered_while_the_event_loop_has_other_work(
    agent: Agent, pod_netns: Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    is_busy, answered, in_time = threading.Event(), threading.Event(), list[bool]()

    def be_busy() -> None:
        is_busy.set()
        in_time.append(answered.wait(60))

    def program_while_busy(*arguments: Any, **options: Any) -> Programmed:
        programmed = program.program(*arguments, **options)
        loop.call_soon_threadsafe(be_busy)
        assert is_busy.wait(60)
        return programmed

    def wait(client: socket.socket) -> int:
        with client:
            while (received := client.recv(65536)) == wire.frame(wire.WORKING, b""):
                pass
        answered.set()
        return received[wire.HEAD]

    monkeypatch.setattr(workers_module, "program", program_while_busy)
    async with agent.serving():
        assert await asyncio.to_thread(wait, asking(agent, pod_netns.path)) == 0
    assert in_time == [True]
    assert "15006" in rules(pod_netns)
    assert [each.outcome for each in agent.outcomes] == ["redirect"]


async def test_a_worker_that_cannot_answer_leaves_it_to_the_event_loop(
    agent: Agent, pod_netns: Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(server_module._Work, "answer", fail)
    async with agent.serving():
        async with asyncio.timeout(60):
            assert await asyncio.to_thread(answer, asking(agent, pod_netns.path)) == 0
        assert [each.outcome for each in agent.outcomes] == ["redirect"]


async def test_a_request_whose_client_is_gone_is_dropped(agent: Agent, gate: Gated, pod_netns: Netns) -> None:
    async with agent.serving():
        given_up = asking(agent, pod_netns.path)
        await gate.asked.wait()
        given_up.close()
        gate.open.set()
        await asyncio.to_thread(lambda: until(lambda: bool(agent.outcomes), 10, "its turn has come"))
        assert rules(pod_netns) == ""
        half_closed = asking(agent, pod_netns.path)  # has said all that it will say, and waits
        half_closed.shutdown(socket.SHUT_WR)
        assert await asyncio.to_thread(answer, half_closed) == 0
    assert [each.outcome for each in agent.outcomes] == ["abandoned", "redirect"]


async def test_a_truncated_request_is_refused(served: Agent) -> None:
    error = await ask(served, wire.frame(wire.REQUEST, b"x" * 100)[:50], end=True)
    assert (error["code"], "its end" in error["msg"]) == (6, True)
    await still_serves(served)


async def test_a_slow_request_is_refused(served: Agent) -> None:
    error = await ask(served, wire.frame(wire.REQUEST, b"x" * 100)[:50])
    assert (error["code"], "50 bytes" in error["msg"]) == (5, True)
    await still_serves(served)


async def test_several_descriptors_are_refused_and_closed(served: Agent) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - iterdir holds one more open
    error = await ask(served, b"\x01", *[0] * 5)
    assert (error["code"], "descriptors" in error["msg"]) == (6, True)
    await still_serves(served)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


async def test_silent_clients_delay_nobody(served: Agent) -> None:
    idle = [socket.socket(socket.AF_UNIX) for _ in range(200)]
    for client in idle:
        client.connect(str(served.socket))
    await still_serves(served)
    for client in idle:
        client.close()


async def test_only_root_may_connect(served: Agent) -> None:
    assert stat.S_IMODE(served.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(served.socket.parent.stat().st_mode) == 0o700
    for path in (served.socket, *served.socket.parents[:-2]):
        path.chmod(0o777)  # as if somebody had opened it up: the agent still looks at who asks
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
        "sys.stdout.write(s.recv(65536)[7:].decode())"
    )
    process = await asyncio.create_subprocess_exec(
        "/usr/bin/python3.11", "-I", "-c", program, str(served.socket), user=65534, stdout=subprocess.PIPE
    )
    stdout, _ = await process.communicate()
    error = json.loads(stdout)
    assert (error["code"], "65534" in error["msg"]) == (101, True)


async def still_serves(agent: Agent) -> None:
    """Check that the next pod gets its answer."""
    plugin = reference(agent.socket.parent)
    netns = agent.socket.parent / "netns"
    netns.touch()
    answer = await plugin(calls(plugin, agent, netns), config(plugin, agent))
    assert answer.json["code"] == 4  # a file is no netns: the whole way to the agent and back


async def test_an_answer_is_sent_before_log_and_metrics_are_told(
    agent: Agent, pod_netns: Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, in_time, working = threading.Event(), [], wire.frame(wire.WORKING, b"")

    class Told(list[Outcome]):
        def append(self, outcome: Outcome) -> None:
            in_time.append(arrived.wait(60))  # on the loop: what is to be sent cannot be sent meanwhile
            super().append(outcome)

    def wait(client: socket.socket) -> int:
        with client:
            while (received := client.recv(65536)) == working:
                pass  # the machine is busy
            arrived.set()
        return received.removeprefix(working)[wire.HEAD]

    monkeypatch.setattr(agent, "outcomes", Told())
    async with agent.serving():
        clients = [asking(agent, pod_netns.path) for _ in range(2)]  # which share one piece of work and one outcome
        assert await asyncio.gather(*(asyncio.to_thread(wait, each) for each in clients)) == [0, 0]
    assert in_time == [True]
    assert [each.outcome for each in agent.outcomes] == ["redirect"]


async def test_no_pod_waits_for_the_kernel_to_free_another(
    agent: Agent, pod_netns: Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More pods than there are workers, and nothing of theirs is freed before all have their answers."""
    answered, freed = threading.Event(), []

    def slow(session: ReplaySession) -> None:
        if threading.current_thread().name.startswith("freeing"):
            assert answered.wait(60)
        freed.append(threading.current_thread().name)
        close(session)

    close = ReplaySession.close
    monkeypatch.setattr(ReplaySession, "close", slow)
    monkeypatch.setattr(workers_module, "MOST_TO_FREE", 6)
    async with agent.serving():
        clients = [asking(agent, pod_netns.path, CNI_CONTAINERID=f"pod{number}") for number in range(10)]
        assert [await asyncio.to_thread(answer, each) for each in clients] == [0] * 10
        # Beyond what may wait, whoever took it frees it, once its pod has its answer.
        await asyncio.to_thread(lambda: until(lambda: len(freed) == 4, 10, "workers free what has no room"))
        assert all(name.startswith("netns") for name in freed)
        answered.set()
    assert len(freed) == 10


async def test_110_concurrent_adds_succeed(agent: Agent, pod_netns: Netns, tmp_path: Path) -> None:  # F29
    plugin = reference(tmp_path)
    async with agent.serving():
        many = [plugin(calls(plugin, agent, pod_netns.path), config(plugin, agent)) for _ in range(110)]
        answers = await asyncio.gather(*many)
    assert {answer.status for answer in answers} == {0}
    assert "15006" in rules(pod_netns)
