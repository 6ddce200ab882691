"""Neither foreign connections, idle or slow, nor many pods at once exhaust the agent's descriptors (F29, F37)."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from plugin import wire
from plugin.descriptors import SELECTABLE
from plugin.keys import REROUTE, TRAFFIC
from tests.plugin.conftest import manifest
from tests.support.agent import AgentProcess
from tests.support.netns import Netns
from tests.support.wait import eventually, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

pytestmark = pytest.mark.kernel

NOBODY = 65534
PATIENCE = 30.0  # seconds, after which something never happens
PRIMARY = b'{"cniVersion": "1.0.0", "name": "k8s", "plugins": [{"type": "bridge"}]}'
# argv: family, address, number, payload. It opens that many connections, and prints how many are open.
CROWD = """
import resource, socket, sys, time
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
what, where, many, say = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].encode()
held = []
for _ in range(many):
    one = socket.socket(socket.AF_UNIX if what == "unix" else socket.AF_INET)
    one.settimeout(5)
    try:
        one.connect(where if what == "unix" else ("127.0.0.1", int(where)))
        one.send(say)
    except OSError as error:
        continue
    held.append(one)
print(len(held), flush=True)
while True:  # byte by byte, as those do who mean to stay
    time.sleep(0.2)
    for one in held:
        try:
            one.send(say)
        except OSError:
            pass
"""

# argv: port, number, payload. It keeps that many open, and replaces a closed one at once.
CHURN = """
import resource, select, socket, sys
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
port, many, say = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode()
held, poll = {}, select.epoll()
def begin():
    one = socket.socket()
    one.setblocking(False)
    one.connect_ex(("127.0.0.1", port))
    held[one.fileno()] = one
    poll.register(one, select.EPOLLIN | (select.EPOLLOUT if say else 0))
for _ in range(many):
    begin()
print(len(held), flush=True)
while True:
    for fd, events in poll.poll():
        one = held[fd]
        try:
            if events & select.EPOLLOUT:
                one.send(say)
                poll.modify(fd, select.EPOLLIN)
            if not events & (select.EPOLLIN | select.EPOLLERR | select.EPOLLHUP) or one.recv(65536):
                continue
        except BlockingIOError:
            continue
        except OSError:
            pass
        poll.unregister(fd)
        held.pop(fd).close()
        begin()
"""


LIMITS = {"the limit as it is": None, "1,000 descriptors": 1000, "256 descriptors": 256}


def limited(folder: Path, limit: int | None) -> AgentProcess:
    """Prepare an agent that may have so many descriptors, with a pod."""
    for name in ("conf", "bin", "pods"):
        (folder / name).mkdir()
    (folder / "conf" / "10-k8s.conflist").write_bytes(PRIMARY)
    pod = {"apiVersion": "v1", "kind": "Pod"} | manifest()
    (folder / "pods" / "web.json").write_text(json.dumps(pod))
    prefix = ["/usr/bin/prlimit", f"--nofile={limit}:{limit}", "--"] if limit else []
    options: dict[str, str | Path] = {"pods-from": folder / "pods"}
    return AgentProcess(folder, conf_dir=folder / "conf", bin_dir=folder / "bin", options=options, prefix=prefix)


@pytest.fixture(params=LIMITS.values(), ids=[*LIMITS])
def agent(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[AgentProcess]:
    with limited(tmp_path, request.param) as made:
        made.ready()
        yield made


@pytest.fixture(scope="module", params=LIMITS.values(), ids=[*LIMITS])
def lasting(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[AgentProcess]:
    """One for all crowds, one after the other."""
    with limited(tmp_path_factory.mktemp("lasting"), request.param) as made:
        made.ready()
        yield made


@pytest.fixture
def crowds() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def crowd(stack: ExitStack, what: str, where: str, many: int, say: str = "", *, user: int = NOBODY) -> int:
    """Have a process of this user open and hold that many connections; return how many it got."""
    return _held(stack, [CROWD, what, where, str(many), say], user)


def _held(stack: ExitStack, program: list[str], user: int = NOBODY) -> int:
    command = ["/usr/bin/python3.11", "-I", "-c", *program]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, user=user)
    stack.callback(process.wait)
    stack.callback(process.kill)
    assert process.stdout is not None
    stack.callback(process.stdout.close)
    return int(process.stdout.readline())


@pytest.mark.slow
@pytest.mark.parametrize("say", ["", "G", "GET /metrics HTTP/1.1\r\n", "GET /metrics HTTP/1.1\r\n\r\n" * 300])
async def test_many_health_connections_delay_no_pod(
    lasting: AgentProcess, crowds: ExitStack, tmp_path: Path, say: str
) -> None:
    assert lasting.process is not None
    crowd(crowds, "tcp", str(lasting.port), 1100, say)
    with Netns(tmp_path / "netns") as netns:
        answer = await lasting.add(netns, "shop", "web")
        assert answer.status == 0, answer.stdout
    for _ in range(3):
        assert lasting.get("/healthz")[0] == 200
    assert lasting.get("/readyz")[0] == 200
    assert lasting.process.poll() is None
    assert lasting.log.stat().st_size < 100_000


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("lasting", [None], indirect=True)
@pytest.mark.parametrize("say", ["", "G", "GET /metrics HTTP/1.1\r\n", "GET /healthz HTTP/1.1\r\n\r\n"])
def test_no_probe_is_lost_while_other_clients_keep_connecting(
    lasting: AgentProcess, crowds: ExitStack, say: str
) -> None:
    assert _held(crowds, [CHURN, str(lasting.port), "2000", say]) == 2000
    paths = ["/healthz", "/readyz"] * 100
    with ThreadPoolExecutor(8) as probes:
        answers = [*probes.map(lasting.get, paths)]
    assert [each for each in answers if each[0] != 200] == []
    assert lasting.process is not None
    assert lasting.process.poll() is None
    assert lasting.log.stat().st_size < 100_000


@pytest.mark.slow
@pytest.mark.parametrize("say", ["", "\x01"])
async def test_many_socket_connections_delay_no_pod(
    lasting: AgentProcess, crowds: ExitStack, tmp_path: Path, say: str
) -> None:
    assert lasting.process is not None
    crowd(crowds, "unix", str(lasting.socket), 1000, say, user=0)
    for path in (lasting.socket, *lasting.socket.parents[:-2]):
        path.chmod(0o777)  # as if somebody had relaxed its mode
    crowd(crowds, "unix", str(lasting.socket), 1000, say)
    with Netns(tmp_path / "netns") as netns:
        answer = await lasting.add(netns, "shop", "web")
        assert answer.status == 0, answer.stdout
    assert lasting.process.poll() is None
    assert lasting.log.stat().st_size < 100_000


@pytest.mark.parametrize("agent", [None], indirect=True)
async def test_connections_and_netns_take_no_descriptor_that_the_work_needs(
    agent: AgentProcess, crowds: ExitStack, tmp_path: Path
) -> None:
    assert agent.process is not None
    pid = agent.process.pid
    await asyncio.sleep(0.5)
    before = descriptors(pid)
    assert crowd(crowds, "tcp", str(agent.port), 40, "G") == 40
    request = wire.frame(wire.REQUEST, b"x" * 100)
    (tmp_path / "netns").touch()
    for _ in range(20):
        client = crowds.enter_context(socket.socket(socket.AF_UNIX))
        client.connect(str(agent.socket))
        with (tmp_path / "netns").open() as file:
            socket.send_fds(client, [request[:50]], [file.fileno()])
    until(lambda: len(high(pid)) >= 80, 4, "40 connections, and 20 with a netns each, are moved up")
    assert len(descriptors(pid) - high(pid)) <= len(before) + 3
    assert sum("/netns" in str(each) for _, each in high(pid)) == 20


def descriptors(pid: int) -> set[tuple[int, str]]:
    """List an agent's open descriptors, and what each is."""
    found = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add((int(each.name), str(each.readlink())))
    return found


def high(pid: int) -> set[tuple[int, str]]:
    return {each for each in descriptors(pid) if each[0] >= SELECTABLE}


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_thousand_concurrent_adds_are_all_redirected(
    agent: AgentProcess, crowds: ExitStack, tmp_path: Path
) -> None:  # F29
    """Requests without the runtime's plugin processes, beside foreign connections."""
    crowd(crowds, "tcp", str(agent.port), 1100)
    crowd(crowds, "unix", str(agent.socket), 900, user=0)
    for number in range(20):
        crowds.enter_context(Netns(tmp_path / f"netns{number}"))
    asking = [add(agent, tmp_path / f"netns{number % 20}", number) for number in range(1000)]
    statuses = await asyncio.gather(*asking)
    assert statuses == [0] * 1000
    assert agent.process is not None
    assert agent.process.poll() is None
    assert agent.log.read_text().count("descriptor") < 20


PORTS = ",".join(str(number + 1) for number in range(512))
RANGES = ",".join(f"10.{number // 256}.{number % 256}.0/24" for number in range(1024))
FEWER = RANGES.split(",")
LARGE = {
    TRAFFIC + "includeOutboundPorts": PORTS,
    TRAFFIC + "excludeOutboundIPRanges": ",".join(FEWER[:800]),
}  # 1,900 rules
MIDDLE = {TRAFFIC + "excludeOutboundIPRanges": ",".join(FEWER[:240])}  # 290 rules, of both families together
TOO_LARGE = LARGE | {REROUTE: "tap0", TRAFFIC + "includeOutboundIPRanges": RANGES}


@contextmanager
def entering(agent: AgentProcess) -> Iterator[Mapping[int, set[int]]]:
    """Look all the time which of the agent's threads are in which netns: inode to thread ids."""
    assert agent.process is not None
    tasks, seen, stop = Path(f"/proc/{agent.process.pid}/task"), defaultdict[int, set[int]](set), threading.Event()

    def look() -> None:
        while not stop.wait(0.0005):
            for task in tasks.iterdir():
                with suppress(OSError):
                    seen[(task / "ns" / "net").stat().st_ino].add(int(task.name))

    with ThreadPoolExecutor(1) as looking:
        ended = looking.submit(look)
        try:
            yield seen
        finally:
            stop.set()
        ended.result()


@pytest.mark.parametrize("agent", [None], indirect=True)
async def test_no_thread_that_serves_pods_compiles_the_ruleset_of_one(
    agent: AgentProcess, crowds: ExitStack, tmp_path: Path
) -> None:
    """Rules are compiled in a netns made for it: none of the threads that enter those of pods is ever seen there."""
    names = [f"own{number}" for number in range(8)]
    for number, name in enumerate(names):
        pod = {"apiVersion": "v1", "kind": "Pod"} | manifest(name, **{TRAFFIC + "excludeInboundPorts": str(number + 1)})
        (tmp_path / "pods" / f"{name}.json").write_text(json.dumps(pod))
    names += ["web"] * 8
    paths = [crowds.enter_context(Netns(tmp_path / f"netns{number}")).path for number in range(len(names))]
    pods, home = {Netns(path).inode for path in paths}, Netns(Path("/proc/self/ns/net")).inode
    before = agent.open_files()
    with entering(agent) as seen:
        for _ in range(3):  # uses of each ruleset: after the second one it is compiled
            asking = [
                add(agent, path, number, name) for number, (path, name) in enumerate(zip(paths, names, strict=True))
            ]
            assert await asyncio.gather(*asking) == [0] * len(names)
            await eventually(lambda: agent.open_files() <= before, PATIENCE, "what pods took is freed")
        await eventually(lambda: seen.keys() - pods - {home}, PATIENCE, "a ruleset is compiled")
    serving, compiling = (
        set[int]().union(*(seen[each] for each in where)) for where in (pods, seen.keys() - pods - {home})
    )
    assert serving
    assert compiling
    assert not serving & compiling


@pytest.mark.slow
@pytest.mark.parametrize("agent", [None], indirect=True)
@pytest.mark.parametrize("large", [LARGE, MIDDLE], ids=["1,900 rules", "290 rules"])
async def test_large_pods_queue_for_one_thread_that_serves_no_others_and_their_memory_is_freed(
    agent: AgentProcess, crowds: ExitStack, tmp_path: Path, large: dict[str, str]
) -> None:
    for name, asked in (("large", large), ("too-large", TOO_LARGE)):
        pod = {"apiVersion": "v1", "kind": "Pod"} | manifest(name, **asked)
        (tmp_path / "pods" / f"{name}.json").write_text(json.dumps(pod))
    for number in range(40):
        crowds.enter_context(Netns(tmp_path / f"netns{number}"))
    for name, status in (("web", 0), ("large", 0), ("too-large", 1)):  # the agent caches them from now on
        assert await add(agent, tmp_path / "netns0", 1000, name) == status
    before = agent.rss()

    async def ask(number: int, name: str) -> tuple[str, int]:
        own = number if name == "large" else 20 + number % 20
        status = await add(agent, tmp_path / f"netns{own}", number, name)
        return name, status

    names = ["large"] * 20 + ["too-large"] * 20 + ["web"] * 40
    with entering(agent) as seen:
        asking = [asyncio.create_task(ask(number, name)) for number, name in enumerate(names)]
        assert (await asyncio.to_thread(agent.get, "/healthz"))[0] == 200
        statuses = set(await asyncio.gather(*asking))
    assert statuses == {("large", 0), ("too-large", 1), ("web", 0)}
    of_large, of_others = (
        set[int]().union(*(seen[Netns(tmp_path / f"netns{number}").inode] for number in numbers))
        for numbers in (range(20), range(20, 40))
    )
    assert len(of_large) == 1
    assert of_others
    assert not of_large & of_others
    assert "rules for all lists of the pod', expected at most 2000" in agent.log.read_text()
    until(lambda: agent.rss() - before < 12 << 20, 30, "the burst's memory is returned")


async def add(agent: AgentProcess, netns: Path, number: int, pod: str = "web") -> int:
    """Send a request as the plugin does, until there is an answer; return the exit status."""
    variables = {
        b"CNI_COMMAND": b"ADD",
        b"CNI_CONTAINERID": b"%d" % number,
        b"CNI_NETNS": bytes(netns),
        b"CNI_IFNAME": b"eth0",
        b"CNI_ARGS": b"K8S_POD_NAMESPACE=shop;K8S_POD_NAME=%s;K8S_POD_UID=uid-of-%s" % (pod.encode(), pod.encode()),
    }
    request = wire.frame(wire.REQUEST, wire.join(variables, b'{"cniVersion":"1.0.0"}'))
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as client:
            descriptor = os.open(netns, os.O_RDONLY)
            try:
                client.connect(str(agent.socket))
                socket.send_fds(client, [request], [descriptor])
            except BlockingIOError:  # the kernel's queue is full
                await asyncio.sleep(0.1)
                continue
            finally:
                os.close(descriptor)
            received = b""
            while True:
                try:
                    chunk = await asyncio.get_running_loop().sock_recv(client, 65536)
                except ConnectionError:
                    chunk = b""
                if not chunk:
                    break
                received += chunk
            while received[:2] == bytes((wire.VERSION, wire.WORKING)):
                received = received[wire.HEAD :]
            if received:
                return received[wire.HEAD]


async def test_a_health_address_in_use_delays_no_pod(tmp_path: Path) -> None:
    for name in ("conf", "bin", "pods"):
        (tmp_path / name).mkdir()
    (tmp_path / "conf" / "10-k8s.conflist").write_bytes(PRIMARY)
    (tmp_path / "pods" / "web.json").write_text(json.dumps({"apiVersion": "v1", "kind": "Pod"} | manifest()))
    options: dict[str, str | Path] = {"pods-from": tmp_path / "pods"}
    agent = AgentProcess(tmp_path, conf_dir=tmp_path / "conf", bin_dir=tmp_path / "bin", options=options)
    with socket.socket() as foreigner:
        foreigner.bind(("127.0.0.1", agent.port))
        foreigner.listen()
        with agent:
            assert agent.ready().startswith("ready:")
            with Netns(tmp_path / "netns") as netns:
                answer = await agent.add(netns, "shop", "web")
                assert answer.status == 0, answer.stdout
            said = "cannot listen on the health address"
            assert agent.log.read_text().count(said) == 1
            assert "Address already in use" in agent.log.read_text()
            foreigner.close()
            until(lambda: agent.get("/healthz")[0] == 200, 10, "it listens once the port is free")
            assert agent.get("/readyz")[0] == 200


@pytest.mark.parametrize("address", ["203.0.113.7:15014", "[2001:db8::7]:15014", "[fe80::1]:1", "no.such.host:1"])
async def test_a_health_address_of_another_node_delays_no_pod(tmp_path: Path, address: str) -> None:
    for name in ("conf", "bin", "pods"):
        (tmp_path / name).mkdir()
    (tmp_path / "conf" / "10-k8s.conflist").write_bytes(PRIMARY)
    options: dict[str, str | Path] = {"pods-from": tmp_path / "pods", "health-address": address}
    with AgentProcess(tmp_path, conf_dir=tmp_path / "conf", bin_dir=tmp_path / "bin", options=options) as agent:
        assert agent.ready().startswith("ready:")
        until(lambda: "cannot listen on the health address" in agent.log.read_text(), 10, "it says so")


def test_a_stuck_agent_exits_with_tracebacks() -> None:
    program = (
        "import asyncio, time\n"
        "from installer.agent.liveness import end_if_stuck\n"
        "async def main():\n"
        "    task = asyncio.create_task(end_if_stuck(asyncio.Event(), 1.0))\n"
        "    await asyncio.sleep(3)\n"
        "    print('still there', flush=True)\n"
        "    time.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert (ended.returncode, ended.stdout) == (1, "still there\n")
    assert "Timeout (0:00:01)!" in ended.stderr
    assert "in main" in ended.stderr
