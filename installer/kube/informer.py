"""A watch on objects of one kind: kopf, embedded (D5).

It runs in a thread and an event loop of its own. In the agent's loop kopf would take over SIGTERM and SIGINT, and when it
ends, for whatever reason, it cancels every task that was started after it, those of the plugin's requests too. Each kind
has a watch of its own, as kopf ends all that it watches when it lacks the right to one of them: pods are heard of whatever
becomes of the others.

There is one handler, `on.event`: every other kind but the index writes finalizers and annotations on what it handles, on
pods of users (F20), or from each node on one object. One list and one watch, filtered by the API server (F19).
"""

from __future__ import annotations

import asyncio
import logging
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from installer.aio import wait
from installer.kube.credentials import Login
from installer.kube.kopf import kopf

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SILENCE = 600.0  # seconds after which a connection is taken for dead; where nothing changes no bookmark comes either
# In a page of the list. Whole pods are big, 1.5 MB at most, and take several times that while they are parsed: with 200 of
# 1 MB each an agent has 119 MiB at most, and 168 with 25 in a page.
AT_ONCE = 10
WORKER_SECONDS = 0.05  # that kopf keeps what it heard last of an object, to wait for more
FAREWELL = 0.25  # seconds for TLS connections to be closed in the background, as aiohttp asks for
PAUSES = (0.5, 1, 2, 4, 8, 15)  # seconds between tries

_log = logging.getLogger(__name__)
logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)  # it warns that it leaves the signals to us

_T = TypeVar("_T")


class Watched(NamedTuple):
    """What is watched: a kind in all namespaces, and which of its objects; group is empty for the core's kinds."""

    group: str
    version: str
    plural: str
    field_selector: str = ""


class ClusterWatch(Generic[_T]):
    """Hears of the objects of one kind."""

    def __init__(
        self,
        watched: Watched,
        kubeconfig: Path | None,
        read: Callable[[kopf.RawEvent], _T],
        heard: Callable[[_T], None],
    ) -> None:
        """Prepare.

        Args:
            watched: which objects.
            kubeconfig: as `credentials` takes it.
            read: makes what is kept of an event, in the watch's thread.
            heard: told each thing that was read, in the event loop that `run` is called in.
        """
        self._watched = watched
        self._login = Login(kubeconfig)
        self._read = read
        self._heard = heard
        self._end: Callable[[], object] = lambda: None
        self.ended = ""

    async def keep_running(self, stop: asyncio.Event) -> None:
        """Hear until told to stop, and start again what ends; while it goes on it survives cuts and outages by itself.

        `ended` says why it ended last.
        """
        tries = 0
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            started = loop.time()
            try:
                await self.run(stop)
                reason = "it did not tell of all of them"
            except Exception as error:  # noqa: BLE001 - whatever ends kopf, the agent goes on
                reason = f"{type(error).__name__}: {error}" + (f" ({error.__cause__})" if error.__cause__ else "")
            if stop.is_set():
                return
            tries = 1 if loop.time() - started > 2 * PAUSES[-1] else tries + 1
            self.ended = f"the watch on {self._watched.plural} ended: {reason}"
            _log.error("a watch ended, and is started again", extra={"watch": self._watched.plural, "reason": reason})
            await wait(stop, pause(tries))

    async def run(self, stop: asyncio.Event) -> None:
        """Hear until told to stop.

        Raises:
            Exception: whatever ended kopf: credentials that are refused, a right that is missing, a mistake.
        """
        agent, told = asyncio.get_running_loop(), asyncio.Event()
        runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        inner = runner.get_loop()

        def in_thread() -> None:
            with runner:
                runner.run(self._operator(agent, told))

        def end() -> None:
            with suppress(RuntimeError):  # its loop is closed: it has ended already
                inner.call_soon_threadsafe(told.set)

        with ThreadPoolExecutor(1, "kopf") as thread:
            operator = agent.run_in_executor(thread, in_thread)
            stopped = asyncio.create_task(stop.wait())
            try:
                self._end = end
                await asyncio.wait((operator, stopped), return_when=asyncio.FIRST_COMPLETED)
            finally:
                stopped.cancel()
                end()
            await operator

    def end(self) -> None:
        """End `run` now, if it runs: what it hears is not all."""
        self._end()

    async def _operator(self, agent: asyncio.AbstractEventLoop, told: asyncio.Event) -> None:
        registry = kopf.OperatorRegistry()  # without kopf's own login handlers, which import API clients

        @kopf.on.login(registry=registry, errors=kopf.ErrorsMode.PERMANENT)
        async def login(**_: object) -> kopf.ConnectionInfo:
            return self._login()

        @kopf.on.event(*self._watched[:3], registry=registry)
        async def event(event: kopf.RawEvent, **_: object) -> None:
            agent.call_soon_threadsafe(self._heard, self._read(event))

        await kopf.operator(
            registry=registry,
            settings=self._settings(),
            standalone=True,  # peers would pause one another, and they are other nodes
            clusterwide=True,
            stop_flag=told,
        )
        await asyncio.sleep(FAREWELL)

    def _settings(self) -> kopf.OperatorSettings:
        settings = kopf.OperatorSettings()
        if self._watched.field_selector:
            settings.watching.field_selectors[self._watched[:3]] = self._watched.field_selector
        settings.watching.inactivity_timeout = SILENCE
        settings.watching.connect_timeout = settings.networking.connect_timeout = PAUSES[-1]
        settings.networking.error_backoffs = [pause(tries) for tries in range(1, len(PAUSES) + 1)]
        settings.networking.request_timeout = 60
        settings.scanning.disabled = True  # no watch on CRDs and namespaces
        settings.watching.chunk_size, settings.queueing.idle_timeout = AT_ONCE, WORKER_SECONDS
        settings.posting.enabled = False  # no Events on what is others'
        settings.process.ultimate_exiting_timeout = None  # kopf would kill this process
        return settings


def pause(tries: int) -> float:
    """Return the seconds to wait after so many tries, from 1: by chance up to twice as long, as other nodes wait as well."""
    return PAUSES[min(tries, len(PAUSES)) - 1] * random.uniform(1, 2)  # noqa: S311 - not for secrets
