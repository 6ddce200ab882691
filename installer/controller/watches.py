"""The watches, by kopf (D5), and the finalizer, by its full handlers, which are on IstioControlPlanes alone.

kopf takes over signals and tasks of the event loop that it runs in, so it gets loops and threads of its own: one for what is of
the whole cluster, one for what is of our namespace, where no right beyond that is needed. Nodes and pods are not
written on (F20): they have `on.event` alone.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.config.control_plane import GROUP, PLURAL, VERSION
from installer.controller.client import POD_LABELS
from installer.controller.finalizer import FINALIZER
from installer.kube.credentials import Login
from installer.kube.informer import FAREWELL, PAUSES, SILENCE, WORKER_SECONDS
from installer.kube.kopf import kopf
from installer.kube.names import CONTROLLER, DAEMONSET, NODES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

PREFIX = NODES[0]  # of the annotations in which kopf keeps what it has handled
AT_ONCE = 500  # objects in a page of a list
_IDENTITY: Any = CONTROLLER


class Kind(Enum):
    """What is watched: group, version, plural."""

    RESOURCE = (GROUP, VERSION, PLURAL)
    REPORT = NODES
    NODE = ("", "v1", "nodes")
    DAEMONSET = ("apps", "v1", "daemonsets")
    POD = ("", "v1", "pods")


CLUSTERWIDE, NAMESPACED = (Kind.RESOURCE, Kind.REPORT, Kind.NODE), (Kind.DAEMONSET, Kind.POD)


class Heard(NamedTuple):
    """What the API server said of one object."""

    kind: Kind
    manifest: Mapping[str, Any]
    gone: bool


class Removals:
    """Which deleted resources may go: kopf's handlers wait for it, the controller's loop says it."""

    def __init__(self) -> None:
        self._futures: dict[str, Future[None]] = {}
        self._lock = threading.Lock()

    def of(self, uid: str) -> Future[None]:
        """Return what is done when the resource of this uid may go."""
        with self._lock:
            return self._futures.setdefault(uid, Future())

    def release(self, uid: str) -> None:
        """Let it go; again and again if need be."""
        with suppress(Exception):  # it was told before
            self.of(uid).set_result(None)

    def end(self) -> None:
        """Have nobody wait any longer: the controller ends, and the next one goes on."""
        with self._lock:
            for each in self._futures.values():
                each.cancel()

    def forget(self, uid: str) -> None:
        """It is gone."""
        with self._lock:
            self._futures.pop(uid, None)


class _ByGeneration(kopf.AnnotationsDiffBaseStorage):
    """Remembers of a resource which generation was handled, not all that it says: an annotation has less room than that."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:  # noqa: ARG002
        return kopf.BodyEssence(spec={"generation": body["metadata"].get("generation", 0)})


class Watches:
    """Hears of all that the controller needs to know."""

    def __init__(
        self, kubeconfig: Path | None, namespace: str, heard: Callable[[Heard], None], removals: Removals
    ) -> None:
        """Prepare.

        Args:
            kubeconfig: as `credentials` takes it.
            namespace: of the DaemonSet and its pods.
            heard: told each thing, in the event loop that `run` is called in.
            removals: which deleted resources may go.
        """
        self._kubeconfig = kubeconfig
        self._namespace = namespace
        self._heard = heard
        self._removals = removals

    async def run(self, stop: asyncio.Event) -> None:
        """Hear until told to stop.

        Raises:
            Exception: whatever ended kopf: credentials that are refused, a right that is missing, a mistake.
        """
        loop = asyncio.get_running_loop()
        runners = [asyncio.Runner(loop_factory=asyncio.new_event_loop) for _ in range(2)]
        inner = [runner.get_loop() for runner in runners]  # before their threads do, as each is to have but one
        ends = [asyncio.Event() for _ in runners]
        operators = (
            (self._registry(loop, CLUSTERWIDE), {"clusterwide": True}),
            (self._registry(loop, NAMESPACED), {"namespaces": [self._namespace]}),
        )

        def in_thread(index: int) -> None:
            with runners[index] as runner:
                registry, where = operators[index]
                runner.run(_operator(registry, ends[index], where))

        with ThreadPoolExecutor(len(runners), "kopf") as threads:
            running = [loop.run_in_executor(threads, in_thread, index) for index in range(len(runners))]
            stopped = asyncio.create_task(stop.wait())
            try:
                awaited: list[asyncio.Future[Any]] = [*running, stopped]
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            finally:
                stopped.cancel()
                self._removals.end()
                for its_loop, end in zip(inner, ends, strict=True):
                    with suppress(RuntimeError):  # its loop is closed: it has ended already
                        its_loop.call_soon_threadsafe(end.set)
            await asyncio.gather(*running)

    def _registry(self, loop: asyncio.AbstractEventLoop, kinds: tuple[Kind, ...]) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()  # without kopf's own login handlers, which import API clients
        login = Login(self._kubeconfig)

        @kopf.on.login(registry=registry, errors=kopf.ErrorsMode.PERMANENT)
        async def log_in(**_: object) -> kopf.ConnectionInfo:
            return login()

        def hear_of(kind: Kind) -> None:
            @kopf.on.event(*kind.value, registry=registry, id=f"hear-of-{kind.value[2]}")
            async def event(event: kopf.RawEvent, **_: object) -> None:
                loop.call_soon_threadsafe(self._heard, Heard(kind, event["object"], event["type"] == "DELETED"))

        for kind in kinds:
            hear_of(kind)
        if Kind.RESOURCE in kinds:
            self._handle_resources(registry)
        return registry

    def _handle_resources(self, registry: kopf.OperatorRegistry) -> None:
        """Have kopf put the finalizer on each resource, and take it off when that may go.

        What a resource says is acted upon by the loop, level-triggered, which hears of it as of everything else.
        """
        log = logging.getLogger(__name__)

        @kopf.on.create(*Kind.RESOURCE.value, registry=registry, id="resource")
        @kopf.on.update(*Kind.RESOURCE.value, registry=registry, id="resource")
        @kopf.on.resume(*Kind.RESOURCE.value, registry=registry, id="resource", deleted=False)
        async def handled(namespace: str | None, name: str, meta: kopf.Meta, **_: object) -> None:
            extra = {"namespace": namespace, "resource": name, "generation": meta.get("generation")}
            log.info("heard what an IstioControlPlane says", extra=extra)

        @kopf.on.delete(*Kind.RESOURCE.value, registry=registry, id="uninstall")
        async def deleted(uid: str, **_: object) -> None:
            await asyncio.wrap_future(self._removals.of(uid))
            self._removals.forget(uid)


async def _operator(registry: kopf.OperatorRegistry, end: asyncio.Event, where: Mapping[str, Any]) -> None:
    settings = _settings()
    # Without an identity kopf asks for the user's name, and the uid that we run as in a pod has none.
    await kopf.operator(
        registry=registry, settings=settings, standalone=True, identity=_IDENTITY, stop_flag=end, **where
    )
    await asyncio.sleep(FAREWELL)


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.persistence.finalizer = FINALIZER
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=PREFIX, v1=False)
    settings.persistence.diffbase_storage = _ByGeneration(prefix=PREFIX, v1=False)
    settings.watching.field_selectors[Kind.DAEMONSET.value] = f"metadata.name={DAEMONSET}"
    settings.watching.label_selectors[Kind.POD.value] = POD_LABELS
    settings.watching.inactivity_timeout = SILENCE
    settings.watching.connect_timeout = settings.networking.connect_timeout = PAUSES[-1]
    settings.networking.error_backoffs = PAUSES
    settings.networking.request_timeout = 60
    settings.scanning.disabled = True  # no watch on definitions and namespaces
    settings.watching.chunk_size, settings.queueing.idle_timeout = AT_ONCE, WORKER_SECONDS
    settings.posting.enabled = False  # the loop tells of what has happened
    settings.process.ultimate_exiting_timeout = None  # kopf would kill this process
    return settings
