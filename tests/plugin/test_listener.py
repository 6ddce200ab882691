"""A connection that fails in whatever way is its peer's affair: nothing is logged as a mistake, and the next is served."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING, Any

import pytest

from plugin import incoming
from plugin.listener import Listener
from tests.support.wait import eventually

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
