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

PACE = 0.5  # seconds between two glances, in which changes gather
TICK = 1.0  # seconds after which ages are drawn anew
SHORTEST = 1.0  # seconds between two tries
AGAIN = 10.0  # seconds after which is asked again for what was refused
LONGEST = 30.0  # seconds between two tries to reach an API server that does not answer


class _Lost(NamedTuple):
    why: str


class _Change(NamedTuple):
    """What is new of a list: all of it, one change, or why the API server cannot be reached."""

    name: str
    update: Listed | Unavailable | Event | _Lost


class _Follower(threading.Thread):
    """Lists, then watches, for ever; a daemon, as it may wait for an answer when the process ends."""

    def __init__(self, access: Access, name: str, source: Source, news: queue.SimpleQueue[_Change]) -> None:
        super().__init__(name=f"watch of {source.resource}", daemon=True)
        self._access, self._of, self._source, self._changes = access, name, source, news

    def run(self) -> None:
        backoff = Backoff(SHORTEST, LONGEST)
        while True:
            try:
                self._follow()
                backoff.reset()
            except UnreachableError as error:
                self._changes.put(_Change(self._of, _Lost(str(error))))
                time.sleep(backoff.next())

    def _follow(self) -> None:
        """List, and watch from there until that cannot go on."""
        listed = self._access.listed(self._source)
        self._changes.put(_Change(self._of, listed))
        if isinstance(listed, Unavailable):
            time.sleep(AGAIN)
            return
        version = listed.version
        try:
            while True:
                started = time.monotonic()
                for event in self._access.watch(self._source, version):
                    version = event.object["metadata"].get("resourceVersion") or version
                    if event.kind != "BOOKMARK":
                        self._changes.put(_Change(self._of, event))
                time.sleep(max(started + SHORTEST - time.monotonic(), 0.0))  # what is between us may cut each watch
        except ExpiredError:
            time.sleep(SHORTEST)
        except NotWatchedError:
            time.sleep(AGAIN)


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
        """Show what changes, and return the exit status.

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
            # What takes its time fails when its minute is over, also if nothing else happens.
            ticks = show.ticks or any(each.state.is_changing for each in found.nodes)
            if lost is None:
                show.show(found)
            else:
                show.lost(lost)
            if over or (until_healthy and lost is None and found.health is Health.HEALTHY):
                return found.health.exit_status

    def _check(self, *, over: bool, timeout: float | None) -> None:
        """Give up where the API server does not answer at first, or when the time is over."""
        if self._lost and (over or not self._is_complete):
            raise UnreachableError(next(iter(self._lost.values())))
        if over and not self._is_complete:
            raise UnreachableError(f"saw no complete answer within {timeout:g} s: raise --timeout")

    def _wait_for_change(self, tick: float | None, end: float | None) -> None:
        """Wait for a change, at most until the next tick or the end; then take in those that follow closely."""
        left = None if end is None else max(end - time.monotonic(), 0.0)
        patience = min((each for each in (tick, left) if each is not None), default=None)
        try:
            self._apply(self._changes.get(timeout=patience))
        except queue.Empty:
            return
        gathered = time.monotonic() + (PACE if self._is_complete else 0.0)
        while (rest := gathered - time.monotonic()) > 0:
            try:
                self._apply(self._changes.get(timeout=rest))
            except queue.Empty:
                return

    def _apply(self, news: _Change) -> None:
        name, update = news
        if isinstance(update, _Lost):
            self._lost[name] = update.why
            return
        self._lost.pop(name, None)
        known = self._known.get(name)
        if isinstance(update, Unavailable):
            self._known[name] = update
        elif isinstance(update, Listed):
            self._known[name] = {_key(each): each for each in update.objects}
        elif isinstance(known, dict):  # as always: a watch follows a list
            if update.kind == "DELETED":
                known.pop(_key(update.object), None)
            else:
                known[_key(update.object)] = update.object
        if name == "daemonsets" and not self._given:
            self._follow_inside()

    def _follow_inside(self) -> None:
        """Follow what is in the DaemonSet's namespace, from the first time that it is known, wherever it then goes."""
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
