"""A connection that fails in whatever way is its peer's affair: nothing is logged as a mistake, and the next is served."""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from plugin import incoming
from plugin import listener as listener_module
from plugin.listener import Listener
from tests.support.wait import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.pure

ERRORS = [errno.EPIPE, errno.ENOTCONN, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.ENOBUFS, errno.EBADF]


@pytest.mark.parametrize("number", ERRORS, ids=lambda number: errno.errorcode[number])
async def test_an_error_of_a_connection_is_not_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    served = []

    async def fail(_: socket.socket, heard: Callable[[], None]) -> None:
        heard()
        served.append(number)
        raise OSError(number, "it failed")

    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listening.bind(str(tmp_path / "socket"))
    listening.listen()
    listener = Listener(listening, fail, most=4, unheard=2, at_a_time=2)
    listener.start()
    for _ in range(2):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "socket"))
            assert await asyncio.to_thread(client.recv, 1) == b""
    await listener.stop()
    assert served == [number] * 2
    assert not caplog.records


async def test_a_client_that_cannot_be_told_that_work_goes_on_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "FIRST_WORD", 0.01)
    monkeypatch.setattr(incoming, "LATER_WORDS", 0.01)
    tries = []

    class Unconnected(socket.socket):
        def send(self, *data: Any) -> int:
            tries.append(data)
            return super().send(*data)

    with Unconnected(socket.AF_UNIX) as connection:
        connection.setblocking(False)
        with pytest.raises(OSError, match="not connected"):
            connection.send(b"")
        request = incoming.Incoming(connection)
        request.keep_client_waiting()
        await eventually(lambda: len(tries) > 3, 10, "it is tried again")
        request.close()


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as made:
        made.bind(str(tmp_path / "socket"))
        made.listen()
        yield made


def connected(listening: socket.socket, count: int, stack: ExitStack) -> list[socket.socket]:
    clients = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(count)]
    for client in clients:
        client.connect(listening.getsockname())
        client.send(b"x")
    return clients


async def test_connections_that_speak_at_once_do_not_wait_for_silent_ones(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "FIRST_SECONDS", 3600.0)
    served = []

    async def serve(_: socket.socket, heard: Callable[[], None]) -> None:
        await asyncio.sleep(0)
        heard()
        served.append(0)

    listener = Listener(listening, serve, most=16, unheard=2, at_a_time=16)
    listener.start()
    with ExitStack() as stack:
        connected(listening, 10, stack)
        await eventually(lambda: len(served) == 10, 10, "all are served")
    await listener.stop()


async def test_a_kernel_that_watches_no_more_sockets_is_asked_again(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where `fs.epoll.max_user_watches` is reached."""
    selector, served, refused = asyncio.get_running_loop()._selector, [], []  # type: ignore[attr-defined]

    def refuse(*_: object) -> None:
        refused.append(0)
        raise OSError(errno.ENOSPC, "no space left on device")

    async def serve(_: socket.socket, heard: Callable[[], None]) -> None:
        heard()
        await asyncio.sleep(0.05)
        served.append(0)

    listener = Listener(listening, serve, most=2, unheard=1, at_a_time=2)
    with ExitStack() as stack:
        connected(listening, 6, stack)
        with monkeypatch.context() as full:
            full.setattr(selector, "register", refuse)
            listener.start()
            await eventually(lambda: len(refused) > 2, 10, "it is tried again")
        await eventually(lambda: served, 10, "the first is served")
        with monkeypatch.context() as full:
            full.setattr(selector, "register", refuse)
            await asyncio.sleep(0.5)
        await eventually(lambda: len(served) == 6, 10, "all are served")
    await listener.stop()
