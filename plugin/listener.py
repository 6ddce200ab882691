"""Accepting connections from anybody: a bounded number at a time, each served in its own task (F32, F37)."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from plugin.descriptors import moved_up

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Serve = Callable[[socket.socket, Callable[[], None]], Awaitable[None]]

EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
BREATH = 0.05  # seconds before another try when the kernel has no descriptor or memory for a connection
SAY_EVERY = 60.0  # seconds between two log lines about that
FIRST_SECONDS = 0.02  # seconds that a connection gets to send something before it may be closed for a newer one

_log = logging.getLogger(__name__)


class Listener:
    """Serves the connections of one listening socket."""

    def __init__(self, listening: socket.socket, serve: Serve, *, most: int, unheard: int, at_a_time: int) -> None:
        """Prepare; `start` begins.

        Args:
            listening: a non-blocking listening socket; `stop` closes it.
            serve: handles each connection, which is closed afterwards. It receives a callback to call once it is
                clear what the connection is for: until then the connection may have to make room for a newer one.
            most: the number of concurrent connections, at least 2; others wait in the kernel's queue.
            unheard: how many of them may have sent no request yet. The oldest of these is closed when
                there are more, so that silent clients block nobody.
            at_a_time: how many are accepted before the accepted ones proceed.
        """
        self._listening = listening
        self._serve = serve
        self._most, self._at_a_time = most, at_a_time
        self._unheard = min(
            unheard, most - 1
        )  # one place is left for the next connection, which replaces the oldest silent one
        self._tasks: dict[asyncio.Task[None], socket.socket] = {}
        self._silent: dict[
            socket.socket, tuple[asyncio.Task[None], float]
        ] = {}  # task and start time; the oldest first
        self._warned_at = float("-inf")
        self._pause: asyncio.TimerHandle | None = None  # until it accepts again
        self._awaits_word = False  # whether that pause ends as well when a silent connection speaks
        self.serving = False  # whether it accepts connections, be it after a pause

    @property
    def count(self) -> int:
        """The number of connections."""
        return len(self._tasks)

    def start(self) -> None:
        """Start accepting connections."""
        self.serving = True
        self._resume()

    async def stop(self) -> None:
        """Stop accepting, close connections without a request, and let the others finish."""
        self._end()
        self._listening.close()
        for task, _ in self._silent.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait([*self._tasks])

    def _resume(self) -> None:
        self._end_pause()
        if self.serving:
            try:
                asyncio.get_running_loop().add_reader(self._listening, self._accept)
            except OSError as error:  # the kernel has no memory for it, or watches as much as root may have watched
                self._say(error)
                self._suspend(BREATH)

    def _suspend(self, seconds: float | None = None, *, awaits_word: bool = False) -> None:
        """Leave connections in the kernel's queue, for some seconds or until there is room for one."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listening)
        if seconds is not None:
            self._pause, self._awaits_word = loop.call_later(seconds, self._resume), awaits_word

    def _end_pause(self) -> None:
        if self._pause:
            self._pause.cancel()
        self._pause, self._awaits_word = None, False

    def _end(self) -> None:
        if self.serving:
            self.serving = False
            self._suspend()
            self._end_pause()

    def _accept(self) -> None:
        """Take what waits in the kernel's queue."""
        for _ in range(self._at_a_time):
            if len(self._tasks) >= self._most:
                return self._suspend()
            if (left := self._time_to_speak()) > 0:
                return self._suspend(left, awaits_word=True)
            try:
                taken, _ = self._listening.accept()
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno == errno.ECONNABORTED:
                    continue
                if error.errno not in EXHAUSTED:
                    self._end()
                    raise
                self._say(error)
                return self._suspend(BREATH)
            self._take(taken)
        return None

    def _time_to_speak(self) -> float:
        """Return the seconds left to the oldest silent connection before the next one may replace it."""
        if len(self._silent) < self._unheard:
            return 0.0
        _, since = next(iter(self._silent.values()))
        return since + FIRST_SECONDS - asyncio.get_running_loop().time()

    def _take(self, taken: socket.socket) -> None:
        """Serve a connection, and make room for it if needed."""
        family, kind = taken.family, taken.type
        connection = socket.socket(family, kind, fileno=moved_up(taken.detach()))
        connection.setblocking(False)
        task = asyncio.create_task(self._run(connection))
        task.add_done_callback(self._ended)
        self._tasks[task] = connection
        self._silent[connection] = task, asyncio.get_running_loop().time()
        if len(self._silent) > self._unheard:
            oldest, _ = self._silent.pop(next(iter(self._silent)))
            oldest.cancel()

    async def _run(self, connection: socket.socket) -> None:
        with suppress(OSError):
            await self._serve(connection, lambda: self._heard(connection))

    def _heard(self, connection: socket.socket) -> None:
        self._silent.pop(connection, None)
        if self._awaits_word and len(self._silent) < self._unheard:
            self._resume()

    def _ended(self, task: asyncio.Task[None]) -> None:
        was_full = len(self._tasks) >= self._most
        connection = self._tasks.pop(task)
        self._heard(connection)
        connection.close()
        if was_full:
            self._resume()
        if not task.cancelled() and (error := task.exception()):
            _log.error("a connection could not be served: this is a bug in the agent", exc_info=error)

    def _say(self, error: OSError) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._warned_at + SAY_EVERY:
            self._warned_at = now
            _log.warning("no connection can be taken for the moment; they wait", extra={"reason": str(error)})
