"""The agent's socket and its directory: served again after a deletion, and never another program's."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from installer.host import socket_dir
from installer.host.agent_lock import lock_file
from installer.host.checkpoint import checkpoint_file
from installer.host.restart import restart_record
from plugin import wire
from plugin.handler import Reply
from plugin.server import Server
from tests.agent.test_agent import PRIMARY
from tests.plugin.conftest import manifest, rules
from tests.support.agent import AgentProcess
from tests.support.netns import Netns
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from plugin.handler import Waiting

pytestmark = pytest.mark.kernel

CHECKPOINT = '{"installed": true, "reason": "", "controlPlane": null, "changes": {}}'


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    made = on_disk(tmp_path)
    with made:
        yield made


def on_disk(folder: Path) -> AgentProcess:
    for name in ("conf", "bin", "pods"):
        (folder / name).mkdir()
    (folder / "conf" / "10-k8s.conflist").write_bytes(PRIMARY)
    pod = {"apiVersion": "v1", "kind": "Pod"} | manifest(**{"traffic.sidecar.istio.io/includeInboundPorts": "*"})
    (folder / "pods" / "web.json").write_text(json.dumps(pod))
    return AgentProcess(
        folder, conf_dir=folder / "conf", bin_dir=folder / "bin", options={"pods-from": folder / "pods"}
    )


def accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def unlinked(path: Path) -> None:
    path.unlink()


def renamed_away(path: Path) -> None:
    path.rename(path.with_name("was.sock"))


def replaced_by_a_file(path: Path) -> None:
    beside = path.with_name("beside")
    beside.write_text("")
    beside.replace(path)


def replaced_by_a_socket(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))


def directory_deleted(path: Path) -> None:
    shutil.rmtree(path.parent)


def directory_made_anew(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.mkdir()


def directory_renamed(path: Path) -> None:
    path.parent.rename(path.parent.with_name("was"))


def lock_file_deleted(path: Path) -> None:
    lock_file(path).unlink()


@pytest.mark.slow
async def test_a_deleted_socket_or_lock_is_created_again(agent: AgentProcess, tmp_path: Path) -> None:
    agent.ready()
    for times, take_away in enumerate(
        (
            unlinked,
            renamed_away,
            replaced_by_a_file,
            replaced_by_a_socket,
            directory_deleted,
            directory_made_anew,
            directory_renamed,
            lock_file_deleted,
        ),
        1,
    ):
        what = take_away.__name__
        take_away(agent.socket)
        until(lambda: agent.log.read_text().count("serving the plugin again") == times, 10, f"{what}: it says so")  # noqa: B023
        until(lambda: agent.get("/readyz")[0] == 200, 10, f"{what}: it is ready again")
        assert agent.log.read_text().count("not serving the plugin") == times
        assert accepts(agent.socket), what
    assert "saw an agent running on this node" in (await asyncio.to_thread(agent.uninstall)).stderr
    with Netns(tmp_path / "netns") as netns:
        answer = await agent.add(netns, "shop", "web")
        assert answer.status == 0, answer.stdout
        assert "redirect to :15006" in rules(netns)


async def test_a_request_in_progress_is_answered_when_the_socket_is_created_again(tmp_path: Path) -> None:
    work = asyncio.Event()

    async def handle(_: bytes, __: int | None, ___: Waiting) -> Reply:
        await work.wait()
        return Reply(0, b"done", lambda: None)

    path = tmp_path / "run" / "agent.sock"
    server = Server(path, handle)
    await server.start()
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(wire.frame(wire.REQUEST, b"asked"))
    assert await reader.readexactly(wire.HEAD) == wire.frame(wire.WORKING, b"")
    path.unlink()
    served = [server.serving]
    await server.start()
    assert [*served, server.serving] == [False, True]
    assert accepts(path)
    work.set()
    assert (await reader.read()).endswith(wire.frame(wire.RESULT, b"\0done"))
    writer.close()
    await server.stop()


def test_a_directory_in_place_of_the_socket_makes_the_agent_not_ready_until_deleted(agent: AgentProcess) -> None:
    agent.ready()
    agent.socket.unlink()
    agent.socket.mkdir()
    until(lambda: "delete the directory" in agent.get("/readyz")[1], 10, "the reason names the obstacle")
    agent.socket.rmdir()
    until(lambda: agent.get("/readyz")[0] == 200, 10, "it is ready again")
    assert accepts(agent.socket)


def a_file(directory: Path) -> None:
    directory.touch()


def linked_to_itself(directory: Path) -> None:
    directory.symlink_to(directory)


@pytest.mark.parametrize("put", [a_file, linked_to_itself])
def test_what_stands_in_place_of_the_directory_makes_the_agent_not_ready_until_deleted(
    agent: AgentProcess, put: Callable[[Path], None]
) -> None:
    agent.ready()
    directory = agent.socket.parent
    directory.rename(directory.with_name("was"))
    put(directory)
    until(lambda: agent.get("/readyz")[0] == 503, 20, "it is not ready")
    directory.unlink()
    until(lambda: agent.get("/readyz")[0] == 200, 20, "it is ready again")
    assert accepts(agent.socket)


def test_a_lock_taken_by_another_agent_is_respected(agent: AgentProcess, tmp_path: Path) -> None:
    agent.ready()
    taken = lock_file(agent.socket).with_name("taken")
    holder = subprocess.Popen(
        ["/usr/bin/flock", str(taken), "/bin/sh", "-c", "echo held; read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout
    assert holder.stdout.readline() == b"held\n"
    taken.replace(lock_file(agent.socket))
    until(
        lambda: "saw an agent running on this node" in agent.get("/readyz")[1], 10, "the reason names the other agent"
    )
    holder.communicate(b"\n")
    until(lambda: agent.get("/readyz")[0] == 200, 10, "it takes over")


def test_the_agent_exits_when_the_directory_under_its_mount_is_deleted(tmp_path: Path) -> None:
    agent = on_disk(tmp_path)
    host = tmp_path / "host"
    host.mkdir()
    agent.socket.parent.mkdir()
    mount = f'mount --bind {host} {agent.socket.parent} && exec "$@"'
    agent.prefix = ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", mount, "sh"]
    with agent:
        agent.ready()
        shutil.rmtree(host)
        assert agent.process
        agent.process.wait(90)
        assert "was deleted from under this container's mount" in agent.log.read_text()
        agent.stop()
        host.mkdir()
        agent.start().ready()
    assert b"istio-cni" in (tmp_path / "conf" / "10-k8s.conflist").read_bytes()


def of_another(directory: Path) -> None:
    (directory / "containerd.sock").touch()


def writable_by_others(directory: Path) -> None:
    directory.chmod(0o1777)


def of_another_user(directory: Path) -> None:
    os.chown(directory, 1000, 1000)


def behind_a_link(directory: Path) -> None:
    other = directory.with_name("containerd")
    other.mkdir(0o711)
    (other / "containerd.sock").touch()
    directory.rmdir()
    directory.symlink_to(other)


@pytest.mark.parametrize("make", [of_another, writable_by_others, of_another_user, behind_a_link])
def test_a_foreign_directory_is_refused_and_left_unchanged(tmp_path: Path, make: Callable[[Path], None]) -> None:
    agent = on_disk(tmp_path)
    directory = agent.socket.parent
    directory.mkdir(0o711)
    make(directory)
    before = directory.stat().st_mode, directory.stat().st_uid, sorted(os.listdir(directory))  # noqa: PTH208
    with agent:
        assert agent.process
        assert agent.process.wait(90) == 1
    assert f"agentSocket: saw the directory {directory}" in agent.log.read_text()
    assert "expected a directory of its own, such as /var/run/istio-cni: correct agentSocket" in agent.log.read_text()
    assert "Traceback" not in agent.log.read_text()
    agent.uninstall()
    assert (directory.stat().st_mode, directory.stat().st_uid, sorted(os.listdir(directory))) == before  # noqa: PTH208


def test_an_existing_directory_of_an_agent_is_used(tmp_path: Path) -> None:
    """As the kubelet creates it, or one of our name with leftovers of an earlier release or Istio's own agent."""
    for name, left, mode in (("run", "agent.sock", 0o755), ("istio-cni", "pluginevent.sock", 0o700)):
        (tmp_path / name).mkdir(0o755)
        (tmp_path / name / left).touch()
        socket_dir.require_own(tmp_path / name / "agent.sock")
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


def test_an_uninstall_deletes_only_the_directory_of_an_agent(tmp_path: Path) -> None:
    agent = on_disk(tmp_path)
    agent.socket.parent.mkdir(0o755)
    assert agent.uninstall().returncode == 0
    assert agent.socket.parent.exists()
    with agent:
        agent.ready()
        assert stat.S_IMODE(agent.socket.parent.stat().st_mode) == 0o755
    assert agent.uninstall().returncode == 0
    assert not agent.socket.parent.exists()


async def test_a_stopped_agent_leaves_nothing_but_the_checkpoint_and_a_pod_waits_for_the_next(
    agent: AgentProcess, tmp_path: Path
) -> None:
    agent.ready()
    directory = agent.socket.parent
    restart_record(agent.socket).touch()
    checkpoint_file(agent.socket).write_text(CHECKPOINT)
    assert agent.stop() == 0
    assert [*directory.iterdir()] == [checkpoint_file(agent.socket)]
    with Netns(tmp_path / "netns") as netns:
        waiting = asyncio.create_task(agent.add(netns, "shop", "web"))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        agent.start()
        assert (await waiting).status == 0
        assert "redirect to :15006" in rules(netns)
    assert checkpoint_file(agent.socket).read_text() == CHECKPOINT


def test_an_agent_that_waits_for_the_lock_touches_nothing_when_it_is_stopped(
    agent: AgentProcess, tmp_path: Path
) -> None:
    agent.ready()
    (tmp_path / "second").mkdir()
    options: dict[str, str | Path] = {"pods-from": tmp_path / "pods", "agent-socket": agent.socket}
    with AgentProcess(tmp_path / "second", conf_dir=agent.conf_dir, bin_dir=agent.bin_dir, options=options) as second:
        until(lambda: "saw an agent running on this node" in second.log.read_text(), 20, "it waits")
    assert accepts(agent.socket)
    assert lock_file(agent.socket).exists()
    assert "not serving the plugin" not in agent.log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_of_two_agents_on_one_node_the_second_waits_and_takes_over(
    agent: AgentProcess, tmp_path: Path, number: signal.Signals
) -> None:
    """As in an overlapping rollout: two releases that write two plugin files."""
    agent.ready()
    newer = tmp_path / "newer-plugin"
    newer.write_bytes((tmp_path / "bin" / "istio-cni").read_bytes() + b"\0newer")
    options: dict[str, str | Path] = {"pods-from": tmp_path / "pods", "plugin-file": newer}
    options["agent-socket"] = agent.socket
    (tmp_path / "second").mkdir()
    second = AgentProcess(tmp_path / "second", conf_dir=agent.conf_dir, bin_dir=agent.bin_dir, options=options)
    with second, Netns(tmp_path / "netns") as netns:
        until(lambda: "saw an agent running on this node" in second.log.read_text(), 20, "it waits")
        before = (tmp_path / "bin" / "istio-cni").stat()
        assert (await agent.add(netns, "shop", "web")).status == 0
        assert (tmp_path / "bin" / "istio-cni").stat().st_ino == before.st_ino
        agent.stop(number)
        assert second.ready()
        assert accepts(agent.socket)
        assert (tmp_path / "bin" / "istio-cni").read_bytes() == newer.read_bytes()
        agent.start()
        until(lambda: agent.log.read_text().count("saw an agent running on this node") == 1, 20, "the first one waits")
        assert (await second.add(netns, "shop", "web")).status == 0
        assert (tmp_path / "bin" / "istio-cni").read_bytes() == newer.read_bytes()
