"""The controller's watches (kopf, D5), and the finalizer of IstioControlPlanes, the only kind with kopf's full handlers.

Nodes and pods have `on.event` alone, which writes nothing to them (F20).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.aio import first_ended
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

PREFIX = NODES[0]  # of the annotations in which kopf records what it handled


class Kind(Enum):
    """A watched kind: group, version, plural."""

    RESOURCE = (GROUP, VERSION, PLURAL)
    REPORT = NODES
    NODE = ("", "v1", "nodes")
    DAEMONSET = ("apps", "v1", "daemonsets")
    POD = ("", "v1", "pods")


class Observed(NamedTuple):
    """An event of a watch: the object's current state, or its last one if deleted."""

    kind: Kind
    manifest: Mapping[str, Any]
    deleted: bool


class Removals:
    """The releases of deleted resources: kopf's handlers wait, the reconciler releases."""

    def __init__(self) -> None:
        self._futures: dict[str, Future[None]] = {}
        self._lock = threading.Lock()

    def of(self, uid: str) -> Future[None]:
        """Return the future that completes when the resource of this uid is released."""
        with self._lock:
            return self._futures.setdefault(uid, Future())

    def release(self, uid: str) -> None:
        """Release a resource; idempotent."""
        with suppress(Exception):  # already released
            self.of(uid).set_result(None)

    def end(self) -> None:
        """Cancel all waiting: the controller exits, and the next leader continues."""
        with self._lock:
            for each in self._futures.values():
                each.cancel()

    def forget(self, uid: str) -> None:
        """Forget a deleted resource."""
        with self._lock:
            self._futures.pop(uid, None)


class _ByGeneration(kopf.AnnotationsDiffBaseStorage):
    """Records only the handled generation of a resource: its whole content would not fit in an annotation."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:  # noqa: ARG002
        return kopf.BodyEssence(spec={"generation": body["metadata"].get("generation", 0)})


class Watches:
    """Observes everything that the controller needs."""

    def __init__(
        self, kubeconfig: Path | None, namespace: str, observe: Callable[[Observed], None], removals: Removals
    ) -> None:
        """Prepare; `observe` receives each event, in the event loop that calls `run`."""
        self._observe = observe
        self._removals = removals
        # One operator for the whole cluster, and one for this namespace, which needs no rights beyond it.
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
        """Observe until `stop` is set.

        Raises:
            Exception: whatever ended kopf: refused credentials, a missing right, a mistake.
        """
        ended = asyncio.Event()
        running = [asyncio.create_task(each.run(ended)) for each in self._operators]
        try:
            await first_ended(stop, *running)
        finally:
            self._removals.end()
            ended.set()
            outcomes = await asyncio.gather(*running, return_exceptions=True)  # none is left running
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    def _watch(self, kind: Kind, **selectors: str) -> Watch:
        return Watch(
            ApiResource(*kind.value),
            lambda event: Observed(kind, event["object"], event["type"] == "DELETED"),
            self._observe,
            **selectors,
        )

    def _handle_resources(self, registry: kopf.OperatorRegistry, settings: kopf.OperatorSettings) -> None:
        """Make kopf add the finalizer to each resource, and remove it after the release.

        The reconciler acts on the resource's content, level-triggered: it observes resources like every other kind.
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
