"""An informer: the objects of one kind, kept up to date with lists and a watch.

The watch reports changes. kopf does not report objects that were deleted during a gap, so all are listed too: at the start,
after each gap of the watch, and periodically. No failure of the API server ends an informer.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from installer.aio import wait
from installer.kube.api_error import ApiError
from installer.kube.backoff import LONGEST, Backoff, spread
from installer.kube.client import METADATA
from installer.kube.operator import ApiResource, Operator, Watch
from installer.kube.store import Entry, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from installer.kube.client import ApiClient
    from installer.kube.kopf import kopf

LIST_EVERY = 600.0  # seconds between two lists, plus random jitter up to the same again
UNDEFINED_EVERY = 60.0  # seconds between checks whether a kind is defined by now
CATCH_UP = 5.0  # seconds for the watch to report what a list has shown
# Objects in one page of the watch's list. Whole pods are large, at most 1.5 MB, and take several times that while they are
# parsed: with 200 of 1 MB each an agent has 119 MiB at most, and 168 with 25 in a page.
PAGE = 10
METADATA_PAGE = 25  # objects in one page of a list of metadata

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


class Selection(NamedTuple):
    """The objects to observe: those of a kind, in all namespaces.

    Attributes:
        resource: the objects' kind.
        field_selector: applied by the API server (F19); empty: all.
        in_lists: whether lists return whole objects; otherwise only metadata, and the watch must report each object.
        is_optional: whether the kind may be undefined yet; then the watch waits for it, because kopf would not notice.
    """

    resource: ApiResource
    field_selector: str = ""
    in_lists: bool = True
    is_optional: bool = False

    @property
    def path(self) -> str:
        """The path of its lists."""
        group, version, plural = self.resource
        return f"/apis/{group}/{version}/{plural}" if group else f"/api/{version}/{plural}"

    @property
    def query(self) -> dict[str, str]:
        """The query of its lists."""
        return {"fieldSelector": self.field_selector} if self.field_selector else {}


class Informer(Generic[_T]):
    """Observes the objects of one kind. Belongs to one event loop."""

    def __init__(
        self,
        api: ApiClient,
        kubeconfig: Path | None,
        selection: Selection,
        read: Callable[[Mapping[str, Any]], _T],
        on_change: Callable[[], None] = lambda: None,
        *,
        list_every: float = LIST_EVERY,
    ) -> None:
        """Prepare; `run` begins.

        `read` extracts what is kept of an object; it also runs in the watch's thread. `on_change` is called when all
        objects are known, after each change of what is kept, and when the kind is undefined.
        """
        self._api = api
        self._selection = selection
        self._on_change = on_change
        self._list_every = list_every
        self._store = Store(read, key="uid")
        watch = Watch(selection.resource, self._read, self._observe, selection.field_selector)
        self._operator = Operator(kubeconfig, [watch], page=PAGE)
        self._defined, self._list_now, self._observed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        if not selection.is_optional:
            self._defined.set()
        self._ended = ""
        self.known = False  # whether all objects have been observed once; stays true during an outage (F30)
        self.undefined = False  # whether the API server says that the kind does not exist
        self.reason = "the API server has not answered yet"

    @property
    def objects(self) -> Mapping[str, _T]:
        """What is kept of the objects, by uid, in the order of their first observation."""
        return self._store.items

    async def run(self, stop: asyncio.Event) -> None:
        """Observe until `stop` is set."""
        async with asyncio.TaskGroup() as tasks:
            listing, watching = tasks.create_task(self._keep_listing()), tasks.create_task(self._keep_watching(stop))
            await stop.wait()
            listing.cancel()
            if not self._defined.is_set():
                watching.cancel()

    async def _keep_watching(self, stop: asyncio.Event) -> None:
        """Restart the watch when it ends; while it runs, it survives disconnections and outages by itself."""
        await self._defined.wait()
        backoff, loop = Backoff(), asyncio.get_running_loop()
        while not stop.is_set():
            started = loop.time()
            try:
                await self._operator.run(stop)
                reason = "it did not report all objects"
            except Exception as error:  # noqa: BLE001 - the agent continues, whatever ends kopf
                reason = f"{type(error).__name__}: {error}" + (f" ({error.__cause__})" if error.__cause__ else "")
            if stop.is_set():
                return
            plural = self._selection.resource.plural
            self._ended = f"the watch on {plural} ended: {reason}"
            _log.error("restarting a watch that ended", extra={"watch": plural, "reason": reason})
            if loop.time() - started > 2 * LONGEST:
                backoff.reset()
            await wait(stop, backoff.next())

    async def _keep_listing(self) -> None:
        backoff = Backoff()
        while True:
            self._list_now.clear()
            pause = 0.0
            try:
                missing = await self._list()
                self.reason = f"{missing} {self._selection.resource.plural} have not been observed. {self._ended}"
                if missing and self.known:
                    self._operator.end()  # its connection is dead, or it has lost events: restart it
                pause = backoff.next() if missing else 0.0
                if not missing:
                    self._mark_known()
            except ApiError as error:
                if error.is_not_found and self._selection.is_optional:
                    self._mark_undefined()
                    pause = UNDEFINED_EVERY
                else:
                    pause = backoff.next(error.retry_after)
                    self._log_failure(str(error))
            if not pause:
                backoff.reset()
            await wait(self._list_now, pause or spread(self._list_every))

    async def _list(self) -> int:
        """List all objects, forget deleted ones, and return how many existing ones have not been observed yet.

        Raises:
            ApiError: if they cannot be listed.
        """
        try:
            return await (self._list_whole() if self._selection.in_lists else self._list_metadata())
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ApiError(f"saw {error!r}, expected a list of {self._selection.resource.plural}") from error

    async def _list_whole(self) -> int:
        before = self._store.versions()
        # The latest state: a list from a cache may lack what the watch has reported.
        listed = self._api.list_objects(self._selection.path, self._selection.query)
        entries = [self._store.entry(each) async for each in listed]
        if self._store.replace(entries, before) and self.known:
            self._on_change()
        self._defined.set()
        return 0

    async def _list_metadata(self) -> int:
        before, known = self._store.versions(), self._store.items
        listed = self._api.list_objects(self._selection.path, self._selection.query, METADATA, METADATA_PAGE)
        uids = {each["metadata"]["uid"] async for each in listed}
        if self._store.retain(uids, before) and self.known:
            self._on_change()
        with suppress(TimeoutError):
            async with asyncio.timeout(CATCH_UP):
                while not uids <= known.keys():
                    self._observed.clear()
                    await self._observed.wait()
        return len(uids - known.keys())

    def _mark_known(self) -> None:
        self.undefined, self.reason = False, ""
        if not self.known:
            self.known = True
            self._on_change()

    def _mark_undefined(self) -> None:
        """Keep what is known: a deleted kind says nothing about the nodes."""
        if self._defined.is_set():
            self._operator.end()
        before, self.undefined = self.undefined, True
        self.reason = f"the API server serves no {self._selection.resource.plural}"
        if not before:
            self._on_change()

    def _log_failure(self, reason: str) -> None:
        if reason != self.reason:
            self.reason = reason
            extra = {"objects": self._selection.resource.plural, "reason": reason}
            _log.warning("cannot list objects; keeping what is known of them", extra=extra)

    def _read(self, event: kopf.RawEvent) -> tuple[Entry[_T], str | None]:
        return self._store.entry(event["object"]), event["type"]

    def _observe(self, event: tuple[Entry[_T], str | None]) -> None:
        entry, kind = event
        if kind == "DELETED":
            changed = self._store.remove(entry)
        else:  # lists have no content of objects, so the watch defines their order
            changed = self._store.keep(entry, force=not self._selection.in_lists)
        if kind is None and self.known:
            self._list_now.set()  # the watch lists again after a gap, and does not report what was deleted in it
        if changed and self.known:
            self._on_change()
        self._observed.set()
