"""Serving the plugin: take the socket and its lock, hold them, and recreate them when somebody deletes them."""

from __future__ import annotations

import asyncio
import logging
import os
from functools import partial
from typing import TYPE_CHECKING

from installer.aio import either, in_thread, until_next, wait
from installer.host.agent_lock import AlreadyRunningError, is_locked, lock
from installer.host.files import explain
from installer.host.socket_dir import ForeignDirectoryError, is_deleted, require_own
from installer.host.unanswered import waiting_for

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from plugin.server import Server

RETRY = 1.0  # seconds between two attempts at what the node refuses for now
RESYNC = 10.0  # seconds between two checks without an event
NOT_SERVING = "saw its socket or its lock file deleted or replaced, expected its own: recreating them"

_log = logging.getLogger(__name__)


class Serving:
    """Serves on one socket; bound to the event loop that creates it."""

    def __init__(self, path: Path, server: Server) -> None:
        self._socket = path
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._lock: int | None = None
        self._is_missing = asyncio.Event()  # the socket or its lock may have been deleted
        self._has_served, self._not_serving = False, "not started yet"

    @property
    def reason(self) -> str | None:
        """Why the agent does not answer the plugin, as `run` has seen it last; None if it does."""
        return self._not_serving or None

    def is_serving(self) -> bool:
        """Whether this agent alone answers the plugin; if not, `run` repairs that. For any thread but the event loop's."""
        with waiting_for(self._socket.parent):
            if self._is_locked() and self._server.serving:
                return True
        self._loop.call_soon_threadsafe(self._is_missing.set)
        return False

    async def hold_node(self, stopping: asyncio.Event) -> bool:
        """Wait until no other agent serves on this socket, as during an upgrade; return False if told to stop meanwhile.

        Raises:
            ForeignDirectoryError: if the socket's directory belongs to another program.
        """
        waiting = False
        while not stopping.is_set():
            try:
                await in_thread(stopping, self._take_lock)
            except (AlreadyRunningError, OSError) as error:
                if not waiting:
                    _log.warning("waiting for the node's lock", extra={"reason": _describe(error)})
                waiting = True
                await wait(stopping, RETRY)
                continue
            if self._lock is not None:
                return True
        return False

    async def run(self, stop: asyncio.Event, stopping: asyncio.Event, on_change: Callable[[], None]) -> None:
        """Serve until `stop` is set.

        `stopping` is set if the agent has to exit, because only a new container can serve again. `on_change` is called when
        it starts or stops serving.
        """
        while not stop.is_set():
            self._is_missing.clear()
            if not await in_thread(stop, self.is_serving) and not stop.is_set():
                if not self._not_serving:
                    self._not_serving = NOT_SERVING
                    _log.error("not serving the plugin", extra={"reason": NOT_SERVING})
                    on_change()
                await self._listen(stop, stopping)
                on_change()
            await wait(stop, RETRY)
            await either(stop, self._is_missing, until_next(RESYNC))
        await self._server.stop()

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _listen(self, stop: asyncio.Event, stopping: asyncio.Event) -> None:
        try:
            await in_thread(stop, self._take_lock)
            if listening := await in_thread(stop, self._bind):
                self._server.listen(listening)
        except (AlreadyRunningError, ForeignDirectoryError, OSError) as error:
            reason = _describe(error)
            if reason != self._not_serving:
                _log.error("cannot serve the plugin", extra={"reason": reason})
            self._not_serving = reason
            if await in_thread(stop, partial(is_deleted, self._socket)):
                _log.error("exiting: the directory of agentSocket was deleted from under this container's mount")
                stopping.set()
        else:
            if self._has_served:
                _log.warning("serving the plugin again")
            self._has_served, self._not_serving = True, ""

    def _take_lock(self) -> None:
        with waiting_for(self._socket.parent):
            if not self._is_locked():
                self.close()
                require_own(self._socket)
                self._lock = lock(self._socket)

    def _bind(self) -> socket.socket:
        with waiting_for(self._socket.parent):
            return self._server.bind()

    def _is_locked(self) -> bool:
        fd = self._lock
        return fd is not None and is_locked(fd, self._socket)


def _describe(error: Exception) -> str:
    return explain(error) if isinstance(error, OSError) else str(error)
