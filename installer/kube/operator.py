"""kopf, embedded: an operator in a thread and an event loop of its own (D5).

In the caller's loop kopf would take over SIGTERM and SIGINT, and when it ends, for any reason, it cancels every task that
was started after it, including the plugin's requests. It also ends all its watches when it lacks the right to one kind,
so watches that must continue have an operator of their own.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.aio import first_ended
from installer.kube.backoff import Backoff
from installer.kube.credentials import Login
from installer.kube.kopf import kopf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

SILENCE = 600.0  # seconds after which a connection counts as dead; without changes there are no bookmarks either
WORKER_SECONDS = 0.05  # for which kopf holds an object's last event, to batch further ones
FAREWELL = 0.25  # seconds for TLS connections to close in the background, as aiohttp requires
CONNECT_TIMEOUT, REQUEST_TIMEOUT = 15, 60  # seconds
RETRIES = 6  # of a request, before kopf ends

logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)  # it warns that it leaves the signals to us


class ApiResource(NamedTuple):
    """A kind of objects as the API serves it; the core group is empty."""

    group: str
    version: str
    plural: str


class Watch(NamedTuple):
    """A watch, and the handling of its events.

    Attributes:
        resource: of the objects.
        read: extracts what is kept of an event, in the operator's thread.
        observe: receives it, in the event loop that calls `Operator.run`.
        field_selector: applied by the API server (F19); empty: all.
        label_selector: likewise.
    """

    resource: ApiResource
    read: Callable[[kopf.RawEvent], Any]
    observe: Callable[[Any], None]
    field_selector: str = ""
    label_selector: str = ""


class Operator:
    """Watches kinds of objects.

    Each has one handler, `on.event`: all others except the index write finalizers and annotations on the objects: on pods of
    users (F20), or from each node on one object.
    """

    def __init__(
        self,
        kubeconfig: Path | None,
        watches: Iterable[Watch],
        *,
        page: int,
        namespace: str | None = None,
        configure: Callable[[kopf.OperatorRegistry, kopf.OperatorSettings], None] = lambda *_: None,
    ) -> None:
        """Prepare; `run` begins.

        `page` is the number of objects in one page of a list. Without `namespace` it watches the whole cluster. `configure`
        adds handlers and settings.
        """
        self._login = Login(kubeconfig)
        self._watches = tuple(watches)
        self._page = page
        self._where: dict[str, Any] = {"namespaces": [namespace]} if namespace else {"clusterwide": True}
        self._configure = configure
        self._end: Callable[[], object] = lambda: None

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until `stop` is set, or `end` is called.

        Raises:
            Exception: whatever ended kopf: refused credentials, a missing right, a mistake.
        """
        caller, stop_flag = asyncio.get_running_loop(), asyncio.Event()
        runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        inner = runner.get_loop()

        def run_in_thread() -> None:
            with runner:
                runner.run(self._operate(caller, stop_flag))

        def end() -> None:
            with suppress(RuntimeError):  # its loop is closed: it has already ended
                inner.call_soon_threadsafe(stop_flag.set)

        with ThreadPoolExecutor(1, "kopf") as thread:
            operator = caller.run_in_executor(thread, run_in_thread)
            try:
                self._end = end
                await first_ended(stop, operator)
            finally:
                end()
            await operator

    def end(self) -> None:
        """End `run` now, if it runs."""
        self._end()

    async def _operate(self, caller: asyncio.AbstractEventLoop, stop_flag: asyncio.Event) -> None:
        registry = kopf.OperatorRegistry()  # without kopf's login, which imports API clients
        settings = self._settings()

        @kopf.on.login(registry=registry, errors=kopf.ErrorsMode.PERMANENT)
        async def log_in(**_: object) -> kopf.ConnectionInfo:
            return self._login()

        for each in self._watches:
            _handle_events(registry, caller, each)
        self._configure(registry, settings)
        await kopf.operator(
            registry=registry,
            settings=settings,
            standalone=True,  # peers, which are other nodes, would pause each other
            identity=_IDENTITY,
            stop_flag=stop_flag,
            **self._where,
        )
        await asyncio.sleep(FAREWELL)

    def _settings(self) -> kopf.OperatorSettings:
        settings, backoff = kopf.OperatorSettings(), Backoff()
        for each in self._watches:
            if each.field_selector:
                settings.watching.field_selectors[each.resource[:3]] = each.field_selector
            if each.label_selector:
                settings.watching.label_selectors[each.resource[:3]] = each.label_selector
        settings.watching.inactivity_timeout = SILENCE
        settings.watching.connect_timeout = settings.networking.connect_timeout = CONNECT_TIMEOUT
        settings.networking.error_backoffs = [backoff.next() for _ in range(RETRIES)]
        settings.networking.request_timeout = REQUEST_TIMEOUT
        settings.scanning.disabled = True  # no watch on CRDs and namespaces
        settings.watching.chunk_size, settings.queueing.idle_timeout = self._page, WORKER_SECONDS
        settings.posting.enabled = False  # no Events of kopf's
        settings.process.ultimate_exiting_timeout = None  # kopf would kill this process
        return settings


# Without one, kopf looks up the user's name, which the controller's uid in a pod does not have.
_IDENTITY: Any = "istio-cni"


def _handle_events(registry: kopf.OperatorRegistry, caller: asyncio.AbstractEventLoop, watch: Watch) -> None:
    @kopf.on.event(*watch.resource, registry=registry, id=f"observe-{watch.resource.plural}")
    async def observe(event: kopf.RawEvent, **_: object) -> None:
        caller.call_soon_threadsafe(watch.observe, watch.read(event))
