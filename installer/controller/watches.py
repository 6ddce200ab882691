"""The controller's watches, with kopf (D5), and the finalizer, with kopf's full handlers, on IstioControlPlanes alone.

Nodes and pods are not written on (F20): they have `on.event` alone.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.config.control_plane import GROUP, PLURAL, VERSION
from installer.controller.client import POD_LABELS
from installer.controller.finalizer import FINALIZER
from installer.kube.client import PAGE
from installer.kube.kopf import kopf
from installer.kube.names import DAEMONSET, NODES
from installer.kube.operator import ApiResource, Operator, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

PREFIX = NODES[0]  # of the annotations in which kopf keeps what it has handled


class Kind(Enum):
    """What is watched: group, version, plural."""

    RESOURCE = (GROUP, VERSION, PLURAL)
    REPORT = NODES
    NODE = ("", "v1", "nodes")
    DAEMONSET = ("apps", "v1", "daemonsets")
    POD = ("", "v1", "pods")


class Observed(NamedTuple):
    """An event of a watch: the object as it is, or as it was when it was deleted."""

    kind: Kind
    manifest: Mapping[str, Any]
    deleted: bool


class Removals:
    """Which deleted resources may go: kopf's handlers wait, the reconciler releases."""

    def __init__(self) -> None:
        self._futures: dict[str, Future[None]] = {}
        self._lock = threading.Lock()

    def of(self, uid: str) -> Future[None]:
        """Return the future that is done when the resource of this uid may go."""
        with self._lock:
            return self._futures.setdefault(uid, Future())

    def release(self, uid: str) -> None:
        """Let a resource go; may be repeated."""
        with suppress(Exception):  # it was released before
            self.of(uid).set_result(None)

    def end(self) -> None:
        """Cancel all waiting: the controller ends, and the next one goes on."""
        with self._lock:
            for each in self._futures.values():
                each.cancel()

    def forget(self, uid: str) -> None:
        """Drop a resource that is gone."""
        with self._lock:
            self._futures.pop(uid, None)


class _ByGeneration(kopf.AnnotationsDiffBaseStorage):
    """Remembers of a resource which generation was handled, not all that it says: an annotation has less room than that."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:  # noqa: ARG002
        return kopf.BodyEssence(spec={"generation": body["metadata"].get("generation", 0)})


class Watches:
    """Observes all that the controller needs to know."""

    def __init__(
        self, kubeconfig: Path | None, namespace: str, observe: Callable[[Observed], None], removals: Removals
    ) -> None:
        """Prepare.

        Args:
            kubeconfig: as `credentials` takes it.
            namespace: of the DaemonSet and its pods.
            observe: takes each event, in the event loop that `run` is called in.
            removals: which deleted resources may go.
        """
        self._observe = observe
        self._removals = removals
        # What is in the whole cluster and what is in this namespace, where no right beyond it is needed.
        clusterwide = (self._watch(each) for each in (Kind.RESOURCE, Kind.REPORT, Kind.NODE))
        namespaced = (
            self._watch(Kind.DAEMONSET, field_selector=f"metadata.name={DAEMONSET}"),
            self._watch(Kind.POD, label_selector=POD_LABELS),
        )
        self._operators = (
            Operator(kubeconfig, clusterwide, page=PAGE, configure=self._handle_resources),
            Operator(kubeconfig, namespaced, page=PAGE, namespace=namespace),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Observe until told to stop.

        Raises:
            Exception: whatever ended kopf: refused credentials, a missing right, a mistake.
        """
        ended = asyncio.Event()
        running = [asyncio.create_task(each.run(ended)) for each in self._operators]
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((*running, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            self._removals.end()
            ended.set()
        await asyncio.gather(*running)

    def _watch(self, kind: Kind, **selectors: str) -> Watch:
        return Watch(
            ApiResource(*kind.value),
            lambda event: Observed(kind, event["object"], event["type"] == "DELETED"),
            self._observe,
            **selectors,
        )

    def _handle_resources(self, registry: kopf.OperatorRegistry, settings: kopf.OperatorSettings) -> None:
        """Have kopf put the finalizer on each resource, and take it off when the resource may go.

        The reconciler acts upon what a resource says, level-triggered: it observes resources as everything else.
        """
        settings.persistence.finalizer = FINALIZER
        settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=PREFIX, v1=False)
        settings.persistence.diffbase_storage = _ByGeneration(prefix=PREFIX, v1=False)
        log = logging.getLogger(__name__)

        @kopf.on.create(*Kind.RESOURCE.value, registry=registry, id="resource")
        @kopf.on.update(*Kind.RESOURCE.value, registry=registry, id="resource")
        @kopf.on.resume(*Kind.RESOURCE.value, registry=registry, id="resource", deleted=False)
        async def handled(namespace: str | None, name: str, meta: kopf.Meta, **_: object) -> None:
            extra = {"namespace": namespace, "resource": name, "generation": meta.get("generation")}
            log.info("observed an IstioControlPlane", extra=extra)

        @kopf.on.delete(*Kind.RESOURCE.value, registry=registry, id="uninstall")
        async def deleted(uid: str, **_: object) -> None:
            await asyncio.wrap_future(self._removals.of(uid))
            self._removals.forget(uid)
