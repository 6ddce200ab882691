"""Whoever wishes the agent ill, or has bad luck: all of it on this node's loopback and files, each bounded in number."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from typing import TYPE_CHECKING

from installer.cniconfig import conflist
from installer.cniconfig.netconf import InvalidConfigError
from plugin import wire
from tests.soak.node import primary
from tests.support.wait import eventually

if TYPE_CHECKING:
    import random

    from tests.soak.ledger import Ledger
    from tests.soak.node import SoakNode

CONNECTIONS = 300  # at once, by each that opens some
GARBAGE = (b"", b"\x02\x01\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n", wire.frame(wire.REQUEST, b"CNI_COMMAND=ADD\0\0{")[:-1])
SETTLED = 30.0  # seconds by which the agent has repaired what a primary wrote


async def rewrite(node: SoakNode, ledger: Ledger, chance: random.Random) -> None:
    """Be a primary CNI that writes its conflist twice within milliseconds; what it wrote last has to be there (F33)."""
    contents = [primary(number) for number in chance.sample(range(60000), 2)]
    for write, content in zip(chance.sample([_in_place, _by_rename], 2), contents, strict=True):
        write(node, content)
        await asyncio.sleep(chance.uniform(0, 0.012))
    try:
        await eventually(lambda: _without_entry(node) == contents[-1], SETTLED, "its entry in what was written last")
    except AssertionError:
        ledger.lose("a primary's conflist is lost", repr(node.conflist.read_bytes()[:200]))
    ledger.done["faults: a conflist written twice within 12 ms"] += 1
    await asyncio.sleep(chance.uniform(1.5, 3.0))


async def occupy_health(node: SoakNode, ledger: Ledger) -> None:
    """Hold connections to the health port, and say nothing or half of a request."""
    with contextlib.ExitStack() as held:
        for half in range(CONNECTIONS):
            await _connected(held, socket.AF_INET, ("127.0.0.1", node.agent.port), b"GET /he" if half % 2 else b"")
        await asyncio.sleep(3)
    ledger.done["attacks: connections held to the health port"] += CONNECTIONS
    await asyncio.sleep(2)


async def occupy_socket(node: SoakNode, ledger: Ledger, chance: random.Random) -> None:
    """Hold connections to the agent's socket, and send garbage."""
    with contextlib.ExitStack() as held:
        for _ in range(CONNECTIONS):
            await _connected(held, socket.AF_UNIX, str(node.agent.socket), chance.choice(GARBAGE))
        await asyncio.sleep(1)
    ledger.done["attacks: garbage and silence on the agent's socket"] += CONNECTIONS
    await asyncio.sleep(4)


async def take_away_the_socket(node: SoakNode, ledger: Ledger) -> None:
    """Unlink the agent's socket."""
    await asyncio.sleep(9)
    node.agent.socket.unlink(missing_ok=True)
    ledger.done["faults: the agent's socket unlinked"] += 1


async def restart(node: SoakNode, ledger: Ledger, chance: random.Random) -> None:
    """End the agent, in order or at once, and start it again."""
    await asyncio.sleep(chance.uniform(10, 20))
    number = chance.choice([signal.SIGTERM, signal.SIGKILL])
    await asyncio.to_thread(node.stop, number)
    await asyncio.to_thread(node.start)
    ledger.done[f"faults: the agent ended by {number.name} and started again"] += 1


async def _connected(held: contextlib.ExitStack, family: int, address: str | tuple[str, int], data: bytes) -> None:
    client = held.enter_context(socket.socket(family))
    client.setblocking(False)
    with contextlib.suppress(OSError):  # refused while the agent is away, or its backlog is full: as good as held
        client.connect(address)
    await asyncio.sleep(0)
    with contextlib.suppress(OSError):
        client.send(data)


def _in_place(node: SoakNode, content: bytes) -> None:
    node.conflist.write_bytes(content)


def _by_rename(node: SoakNode, content: bytes) -> None:
    fresh = node.conflist.with_name(".primary")
    fresh.write_bytes(content)
    fresh.replace(node.conflist)


def _without_entry(node: SoakNode) -> bytes:
    content = node.conflist.read_bytes()
    try:
        return conflist.remove(content) if conflist.has_entry(content) else b""
    except InvalidConfigError:
        return b""
