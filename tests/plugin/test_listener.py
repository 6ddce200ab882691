"""A connection that fails in whatever way is its peer's affair: nothing is logged as a mistake, and the next is served."""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from plugin import server
from plugin.listener import Listener

if TYPE_CHECKING:
    from collections.abc import Callable
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


async def test_work_goes_on_if_its_client_cannot_be_told_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FIRST_WORD", 0.01)
    monkeypatch.setattr(server, "LATER_WORDS", 0.01)
    work: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with socket.socket(socket.AF_UNIX) as unconnected:
        unconnected.setblocking(False)
        with suppress(OSError):
            unconnected.send(b"")
            pytest.fail("it can be told")
        request = server._Incoming(unconnected)
        waiting = asyncio.create_task(server._wait_for(work, request))  # type: ignore[arg-type]
        await asyncio.sleep(0.1)
        assert not waiting.done()
        work.set_result(None)
        await waiting
