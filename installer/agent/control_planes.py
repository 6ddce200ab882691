"""The IstioControlPlanes of the cluster, as a node agent hears of them: it reads, and writes on none (D5).

The watch tells of changes; a list tells what there is, at the start and after each gap, and which are gone since. A cluster
may do without them: then nobody asks for anything else than the chart.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.aio import wait
from installer.config.control_plane import GROUP, PLURAL, VERSION
from installer.kube.api_error import ApiError
from installer.kube.informer import ClusterWatch, Watched, pause

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from installer.kube.client import ApiClient
    from installer.kube.kopf import kopf

LIST_EVERY = 600.0  # seconds between two lists, and at most as much again by chance
NOT_DEFINED_EVERY = 60.0  # seconds between two looks whether the kind is there by now

_PATH = f"/apis/{GROUP}/{VERSION}/{PLURAL}"
_METADATA = ("namespace", "name", "uid", "generation", "creationTimestamp", "deletionTimestamp")

_log = logging.getLogger(__name__)

Name = tuple[str, str]


class ControlPlanes:
    """All of the cluster's, as far as they matter to a node."""

    def __init__(
        self, api: ApiClient, kubeconfig: Path | None, on_change: Callable[[], None], *, list_every: float = LIST_EVERY
    ) -> None:
        """Prepare; `run` begins.

        Args:
            api: asked for lists.
            kubeconfig: for the watch.
            on_change: called when they are known, and when what they ask for has changed since.
            list_every: seconds between two lists.
        """
        self._api = api
        self._on_change = on_change
        self._list_every = list_every
        self._watch = ClusterWatch(Watched(GROUP, VERSION, PLURAL), kubeconfig, _read, self._hear)
        self._resources: dict[Name, Mapping[str, Any]] = {}
        self.nodes = 0  # how many nodes the controller has counted, at most; 0: not known yet
        self._known = False
        self._defined = asyncio.Event()
        self._list_now = asyncio.Event()
        self._reason = ""
        self.undefined = False  # whether the API server has said that there is no such kind

    @property
    def resources(self) -> list[Mapping[str, Any]]:
        """Those there are, without their status."""
        return [*self._resources.values()]

    async def run(self, stop: asyncio.Event) -> None:
        """Hear of them until told to stop. Nothing that the API server does or does not do ends it."""
        async with asyncio.TaskGroup() as tasks:
            listing, watching = tasks.create_task(self._keep_listing()), tasks.create_task(self._keep_watching(stop))
            await stop.wait()
            listing.cancel()
            if not self._defined.is_set():
                watching.cancel()

    async def _keep_watching(self, stop: asyncio.Event) -> None:
        await self._defined.wait()  # kopf would not notice that the kind comes into being
        await self._watch.keep_running(stop)

    async def _keep_listing(self) -> None:
        tries = 0
        while True:
            self._list_now.clear()
            try:
                seconds = self._list_every * random.uniform(1, 2) if await self._list() else NOT_DEFINED_EVERY  # noqa: S311
                tries, self._reason = 0, ""
            except ApiError as error:
                tries += 1
                seconds = max(pause(tries), error.retry_after)
                if str(error) != self._reason:
                    self._reason = str(error)
                    _log.warning(
                        "IstioControlPlanes cannot be read: what was set last stays", extra={"reason": str(error)}
                    )
            await wait(self._list_now, seconds)

    async def _list(self) -> bool:
        """Ask for all of them, and forget those that are gone.

        Returns:
            Whether there is such a kind.
        """
        before = {*self._resources}
        answer = await self._api.get(_PATH)  # as of now: one from a cache may not have what the watch has told
        if answer is None:  # what they asked for stays: that the kind is gone says nothing about the nodes
            if self._defined.is_set():
                self._watch.end()
            self.undefined = True
            return False
        try:
            listed = {_name(each): _trimmed(each) for each in answer["items"]}
            self.nodes = max([self.nodes, *map(_nodes_of, answer["items"])])
        except (LookupError, TypeError) as error:
            raise ApiError(f"the API server's answer is no list of IstioControlPlanes: {answer!s:.120}") from error
        seen = self._resources
        now = {name: each for name, each in seen.items() if name in listed or name not in before}
        self._take(listed | now)
        self._defined.set()
        self.undefined = False
        return True

    def _hear(self, heard: _Heard) -> None:
        others = {name: each for name, each in self._resources.items() if name != heard.name}
        self.nodes = max(self.nodes, heard.nodes)
        if heard.listed and self._known:
            self._list_now.set()  # a new list follows a gap, and does not tell who has gone in it
        if self._known:
            self._take(others | ({heard.name: heard.resource} if heard.resource else {}))

    def _take(self, resources: dict[Name, Mapping[str, Any]]) -> None:
        if self._known and resources == self._resources:
            return  # only the status was written
        self._known, self._resources = True, resources
        self._on_change()


class _Heard(NamedTuple):
    """What the API server said of one: as it is, or None if it is gone; `listed` if it said so when asked for all.

    `nodes` are those that its controller has counted.
    """

    name: Name
    resource: Mapping[str, Any] | None
    listed: bool
    nodes: int


def _read(event: kopf.RawEvent) -> _Heard:
    resource = event["object"]
    gone = event["type"] == "DELETED"
    return _Heard(
        _name(resource), None if gone else _trimmed(resource), listed=event["type"] is None, nodes=_nodes_of(resource)
    )


def _name(resource: Mapping[str, Any]) -> Name:
    return resource["metadata"]["namespace"], resource["metadata"]["name"]


def _nodes_of(resource: Mapping[str, Any]) -> int:
    total = ((resource.get("status") or {}).get("nodes") or {}).get("total", 0)
    return total if isinstance(total, int) else 0


def _trimmed(resource: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = resource["metadata"]
    return {
        "metadata": {key: metadata[key] for key in _METADATA if key in metadata},
        "spec": resource.get("spec") or {},
    }
