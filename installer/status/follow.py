"""`install-cni status -w`: a watch of each list, and a new summary whenever something has changed."""

from __future__ import annotations

import queue
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from installer.kube.backoff import Backoff
from installer.status.access import ExpiredError, Listed, NotWatchedError, UnreachableError, sources, sources_in
from installer.status.collect import namespace_of, without_namespace
from installer.status.model import Answers, Health, Unavailable
from installer.status.summary import summarize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from installer.status.access import Access, Event, Source
    from installer.status.model import ClusterStatus, Object
    from installer.status.show import Show

GATHER = 0.5  # seconds after a change in which to collect more of them
TICK = 1.0  # seconds between two updates of the ages on a screen
SHORTEST = 1.0  # seconds between two attempts
REFUSED_AGAIN = 10.0  # seconds before a refused list or watch is requested again
LONGEST = 30.0  # seconds between two attempts to reach an API server that does not answer


class _Lost(NamedTuple):
    """The API server does not answer."""

    why: str


class _Change(NamedTuple):
    """An update of a list: all of it, one event of its watch, or why the API server cannot be reached."""

    name: str
    update: Listed | Unavailable | Event | _Lost


class _Follower(threading.Thread):
    """Keeps listing and watching; a daemon thread, as it may be waiting for a response when the process ends."""

    def __init__(self, access: Access, name: str, source: Source, changes: queue.SimpleQueue[_Change]) -> None:
        super().__init__(name=f"watch of {source.resource}", daemon=True)
        self._access, self._name, self._source, self._changes = access, name, source, changes

    def run(self) -> None:
        backoff = Backoff(SHORTEST, LONGEST)
        while True:
            try:
                self._follow()
                backoff.reset()
            except UnreachableError as error:
                self._changes.put(_Change(self._name, _Lost(str(error))))
                time.sleep(backoff.next())

    def _follow(self) -> None:
        """List, then watch until the list has to be read again."""
        listed = self._access.listed(self._source)
        self._changes.put(_Change(self._name, listed))
        if isinstance(listed, Unavailable):
            time.sleep(REFUSED_AGAIN)
            return
        version = listed.version
        try:
            while True:
                started = time.monotonic()
                for event in self._access.watch(self._source, version):
                    version = event.object["metadata"].get("resourceVersion") or version
                    if event.kind != "BOOKMARK":
                        self._changes.put(_Change(self._name, event))
                time.sleep(max(started + SHORTEST - time.monotonic(), 0.0))  # a proxy may cut each watch at once
        except ExpiredError:
            time.sleep(SHORTEST)
        except NotWatchedError:
            time.sleep(REFUSED_AGAIN)


class Watching:
    """The objects of the cluster, kept up to date."""

    def __init__(self, access: Access, namespace: str | None) -> None:
        """Start to follow.

        Without the DaemonSet's namespace it is searched for.
        """
        self._access = access
        self._changes: queue.SimpleQueue[_Change] = queue.SimpleQueue()
        self._known: dict[str, dict[tuple[str, str], Object] | Unavailable] = {}
        self._lost: dict[str, str] = {}
        self._given = self._inside = namespace
        self._start(sources(namespace) | (sources_in(namespace) if namespace else {}))

    def run(self, show: Show, *, until_healthy: bool, timeout: float | None) -> int:
        """Show the cluster whenever it changes, and return the exit status.

        With `until_healthy` it ends when everything is healthy. `timeout` is in seconds; None: no limit.

        Raises:
            UnreachableError: if the API server cannot be reached at first, or when the time is over.
        """
        end = None if timeout is None else time.monotonic() + timeout
        ticks = show.ticks
        while True:
            self._wait_for_change(TICK if ticks and self._is_complete else None, end)
            over = end is not None and time.monotonic() >= end
            self._check(over=over, timeout=timeout)
            if not self._is_complete:
                continue
            found, lost = self._summarize(), next(iter(self._lost.values()), None)
            # A node that is changing counts as failed after a while, without another event.
            ticks = show.ticks or any(each.state.is_changing for each in found.nodes)
            if lost is None:
                show.show(found)
            else:
                show.lost(lost)
            if over or (until_healthy and lost is None and found.health is Health.HEALTHY):
                return found.health.exit_status

    def _check(self, *, over: bool, timeout: float | None) -> None:
        """Give up if the API server does not answer at the start, or when the time is over."""
        if self._lost and (over or not self._is_complete):
            raise UnreachableError(next(iter(self._lost.values())))
        if over and not self._is_complete:
            raise UnreachableError(f"saw no complete answer within {timeout:g} s: raise --timeout")

    def _wait_for_change(self, tick: float | None, end: float | None) -> None:
        """Wait for a change, at most until the next tick or the end; then apply those that follow within `GATHER`."""
        left = None if end is None else max(end - time.monotonic(), 0.0)
        patience = min((each for each in (tick, left) if each is not None), default=None)
        try:
            self._apply(self._changes.get(timeout=patience))
        except queue.Empty:
            return
        gathered = time.monotonic() + (GATHER if self._is_complete else 0.0)
        while (rest := gathered - time.monotonic()) > 0:
            try:
                self._apply(self._changes.get(timeout=rest))
            except queue.Empty:
                return

    def _apply(self, change: _Change) -> None:
        name, update = change
        if isinstance(update, _Lost):
            self._lost[name] = update.why
            return
        self._lost.pop(name, None)
        known = self._known.get(name)
        if isinstance(update, Unavailable):
            self._known[name] = update
        elif isinstance(update, Listed):
            self._known[name] = {_key(each): each for each in update.objects}
        elif isinstance(known, dict):  # always, as a list precedes its watch
            if update.kind == "DELETED":
                known.pop(_key(update.object), None)
            else:
                known[_key(update.object)] = update.object
        if name == "daemonsets" and not self._given:
            self._follow_inside()

    def _follow_inside(self) -> None:
        """Follow the DaemonSet's namespace once it is known, even if the DaemonSet later moves to another."""
        own = namespace_of(self._answer("daemonsets"))
        if own and self._inside is None:
            self._inside = own
            self._start(sources_in(own))

    def _start(self, lists: Mapping[str, Source]) -> None:
        for name, source in lists.items():
            _Follower(self._access, name, source, self._changes).start()

    @property
    def _is_complete(self) -> bool:
        expected = {*sources(None), *(sources_in("default") if self._inside else ())}
        return expected <= self._known.keys()

    def _summarize(self) -> ClusterStatus:
        known = {name: self._answer(name) for name in self._known}
        if not self._inside:
            known |= without_namespace(known["daemonsets"])
        return summarize(Answers(**known, namespace=self._given), datetime.now(UTC))

    def _answer(self, name: str) -> list[Object] | Unavailable:
        known = self._known[name]
        return known if isinstance(known, Unavailable) else [*known.values()]


def _key(item: Object) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]
