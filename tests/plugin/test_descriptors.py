"""A process without free descriptors waits, without a busy loop or a flood of lines; libnftables ends none (F37)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from plugin.cni import Code

pytestmark = pytest.mark.kernel

REPOSITORY = Path(__file__).parents[2]
FULL = """
import asyncio, json, logging, os, resource, socket, sys
from plugin import listener
from plugin.listener import Listener
lines, served, tries = [], [], []
class Told(logging.Handler):
    def emit(self, record): lines.append(record.getMessage())
logging.getLogger("plugin.listener").addHandler(Told())
class Listening(socket.socket):
    def accept(self):
        tries.append(0)
        return super().accept()
async def serve(connection, heard):
    heard()
    served.append(await asyncio.get_running_loop().sock_recv(connection, 1))
async def main():
    listening = Listening(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listening.bind(sys.argv[1])
    listening.listen()
    clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    fillers = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 5,) * 2)
    try:
        while True:
            fillers.append(os.dup(2))
    except OSError:
        pass
    one = Listener(listening, serve, most=4, unheard=2, at_a_time=2)
    one.start()
    for client in clients:
        client.connect(sys.argv[1])
        client.send(b"x")
    turns = 0
    while len(tries) < 4 and turns < 1000:
        await asyncio.sleep(0.01)
        turns += 1
    waited = len(served), [*lines], turns
    for each in fillers:
        os.close(each)
    while len(served) < 3:
        await asyncio.sleep(0.01)
    print(json.dumps({"served": waited[0], "lines": waited[1], "turns": waited[2], "tries": len(tries)}))
asyncio.run(main())
"""
MANY = """
import os
from plugin.backend import RefusedError
from plugin.libnftables import Context
held = [os.dup(2) for _ in range(1100)]
try:
    Context().run("list tables")
except RefusedError as error:
    print(error)
"""
LEFT = """
import asyncio, os, resource, socket, sys
from pathlib import Path
from plugin import wire
from plugin.server import Server
async def main():
    server = Server(Path(sys.argv[1]), None)
    await server.start()
    with socket.socket(socket.AF_UNIX) as client, open("/proc/self/ns/net") as netns:
        client.setblocking(False)
        client.connect(sys.argv[1])
        socket.send_fds(client, [wire.frame(wire.REQUEST, b"asked")], [netns.fileno()])
        fillers, open_now = [], len(os.listdir("/proc/self/fd")) - 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 5,) * 2)
        try:
            while True:
                fillers.append(os.dup(2))
        except OSError:
            os.close(fillers.pop())  # for the connection, not for what comes with it
        print((await asyncio.get_running_loop().sock_recv(client, 65536))[wire.HEAD + 1:].decode())
        for each in fillers:
            os.close(each)
    await server.stop()
asyncio.run(main())
"""


def run(program: str, *arguments: str) -> str:
    command = ["/usr/bin/prlimit", "--nofile=4096:4096", "--", sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=40, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_a_descriptor_a_listener_pauses_and_logs_one_line(tmp_path: Path) -> None:
    seen: dict[str, Any] = json.loads(run(FULL, str(tmp_path / "socket")))
    assert seen["served"] == 0
    assert seen["lines"] == ["no connection can be taken for the moment; they wait"]
    assert seen["tries"] < 100
    assert seen["turns"] > 0, "the loop turns meanwhile"


def test_libnftables_is_refused_where_select_would_abort_the_process() -> None:
    assert run(MANY).startswith("no file descriptor below 1024 is free")


def test_a_netns_for_which_there_is_no_descriptor_is_tried_again(tmp_path: Path) -> None:
    seen: dict[str, Any] = json.loads(run(LEFT, str(tmp_path / "socket")))
    assert seen["code"] == Code.TRY_AGAIN_LATER
    assert "no free file descriptor" in seen["msg"]
