"""This node's IstioCNINode: its agent alone writes it, and only when something has changed (D5).

Server-side apply preserves the fields of others, such as its owner. An Event on the Node reports each change for the better
or the worse. A state that flaps is written less and less often: 5,000 nodes may have the same trouble.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from installer.agent.node_status import INVALID_SETTINGS, build_status, stale_directories
from installer.aio import until_next, wait
from installer.fleet.objects import find_condition
from installer.kube.api_error import ApiError
from installer.kube.backoff import Backoff, up_to
from installer.kube.names import NODES, NODES_KIND, NODES_VERSION, REDIRECTING, cleaning_command, node_reference
from installer.ratelimit.limiter import REPORTS, RateLimiter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from installer.agent.node_status import Observed
    from installer.config.settings import Settings
    from installer.kube.client import ApiClient
    from installer.kube.event_queue import EventQueue
    from installer.ratelimit.limiter import Limits

CHECK_EVERY = 1.0  # seconds between two checks for a change, at least
RESYNC = 10.0  # seconds between two checks while no change is noticed
# All nodes observe a resource at the same time, so each reports it after a random delay.
SPREAD = 10.0  # seconds at most, in a cluster that is not large
NODES_PER_SECOND = 200  # that report, in a large cluster
COUNTS_EVERY = 600.0  # seconds between two writes for the sake of counts alone
OF_THE_RESOURCE = {"controlPlane", INVALID_SETTINGS}  # reasons that reach all nodes at once
AGAIN_EVERY = 1800.0  # seconds after which it is written without a change: somebody may have deleted it
LONGEST_PAUSE = 60.0  # seconds between two tries, before it is stretched

_log = logging.getLogger(__name__)


class NodeResource:
    """Keeps the IstioCNINode up to date."""

    def __init__(
        self,
        node_name: str,
        api: ApiClient,
        events: EventQueue,
        observe: Callable[[], Observed],
        changed: asyncio.Event,
        *,
        nodes: Callable[[], int] = lambda: 0,
        spread: float = SPREAD,
        limits: Limits = REPORTS,
    ) -> None:
        """Prepare; `run` begins.

        `changed` is set when `observe` may return something else. `nodes` returns how many nodes the cluster has, as far
        as known. `spread` is the longest random delay, in seconds, before an applied resource is reported; more in a large
        cluster. `limits` hold for each cause: an applied resource, or the node's state.
        """
        self._node_name = node_name
        self._api = api
        self._events = events
        self._observe = observe
        self._woken = changed
        self._nodes = nodes
        self._spread = spread
        self._limiters = {applies: RateLimiter(limits) for applies in (True, False)}
        self._has_reported = False
        self._path = f"/apis/{'/'.join(NODES)}/{node_name}"
        self._written: dict[str, Any] = {}
        self._written_at = -COUNTS_EVERY
        self._node_uid = ""
        self._exists = False
        self._has_counted = False  # whether the written status holds this agent's own counts
        self._was_well = False
        self._reason = ""

    async def run(self) -> None:
        """Keep it up to date until cancelled. No failure of the API server ends it."""
        backoff, loop = Backoff(1.0, LONGEST_PAUSE), asyncio.get_running_loop()
        while True:
            self._woken.clear()
            changed = self._changed()
            applies = bool(changed & OF_THE_RESOURCE)  # people wait for this: it does not queue behind flapping states
            if not changed or self._limiters[applies].wait(loop.time()):
                await asyncio.sleep(CHECK_EVERY)
                if not changed:
                    await wait(self._woken, until_next(RESYNC))
                continue
            if applies and self._has_reported:
                await asyncio.sleep(up_to(self.spread))
            try:
                await self.write()
                self._reason, self._has_reported = "", True
                backoff.reset()
                self._limiters[applies].done(loop.time())
            except ApiError as error:
                self._log_failure(str(error))
                await asyncio.sleep(backoff.next(error.retry_after))

    @property
    def spread(self) -> float:
        """Seconds over which nodes spread the report of a change that reaches all at once; starts are spread already."""
        return max(self._spread, self._nodes() / NODES_PER_SECOND)

    async def write(self) -> None:
        """Write the current status; raises ApiError if that fails."""
        if not self._exists:
            await self._ensure_exists()
        observed, previous = self._observe(), self._written
        status = build_status(observed, previous, datetime.now(UTC))
        try:
            await self._api.apply(f"{self._path}/status", self._object() | {"status": status})
        except ApiError as error:
            self._exists = self._exists and error.status != 404  # somebody has deleted it
            raise
        self._written, self._written_at = status, asyncio.get_running_loop().time()
        self._has_counted = observed.redirected is not None
        before, ready = find_condition(previous, "Ready"), find_condition(status, "Ready")
        # A starting agent is not ready for one reason after another.
        same = ("status", "reason") if self._was_well else ("status",)
        self._was_well = self._was_well or ready["status"] == "True"
        if any(before.get(each) != ready[each] for each in same):
            self._record_change(ready, first=not previous)

    def _changed(self) -> set[str]:
        """Name the fields to write: those that have changed, but counts only now and then, once there are any."""
        observed = self._observe()
        status = build_status(observed, self._written, datetime.now(UTC))
        changed = {key for key in status.keys() | self._written.keys() if status.get(key) != self._written.get(key)}
        reasons = {find_condition(each, "Ready").get("reason") for each in (status, self._written)}
        if "conditions" in changed and INVALID_SETTINGS in reasons:
            changed.add(INVALID_SETTINGS)
        age = asyncio.get_running_loop().time() - self._written_at
        if age >= AGAIN_EVERY:
            return changed | {"pods"}
        counts = {"pods", "repairs"} if find_condition(status, "Ready")["reason"] == "Conflict" else {"pods"}
        is_first = observed.redirected is not None and not self._has_counted
        return changed if is_first or age >= COUNTS_EVERY else changed - counts

    async def _ensure_exists(self) -> None:
        """Make sure that the object exists and its Node owns it, and read the previous agent's status."""
        existing = await self._api.get(self._path)
        self._written = (existing or {}).get("status") or {}
        node = await self._api.get(f"/api/v1/nodes/{self._node_name}")
        manifest = self._object()
        if node:
            self._node_uid = node["metadata"]["uid"]
            manifest["metadata"]["ownerReferences"] = [node_reference(self._node_name, self._node_uid)]
        await self._api.apply(self._path, manifest)
        self._exists = True
        await self._report_stale_installation()

    def _object(self) -> dict[str, Any]:
        return {"apiVersion": NODES_VERSION, "kind": NODES_KIND, "metadata": {"name": self._node_name}}

    def _record_change(self, ready: Mapping[str, Any], *, first: bool) -> None:
        """Record an Event of a state change; the controller reports an invalid resource, once for all nodes."""
        reason = ready["reason"]
        if reason == INVALID_SETTINGS or (first and ready["status"] != "True"):  # the agent has just started
            return
        self._record_event(reason, ready["message"], warning=reason not in (REDIRECTING, "Removed"))

    async def _report_stale_installation(self) -> None:
        """Report once the installation that stays behind when cniConfDir or cniBinDir has changed.

        Nothing removes it automatically: the previous agent cannot know whether the runtime still reads it, and this one
        has no access. Without an entry that is still read, pods bypass the mesh; without its plugin file none can
        start or stop (F6, F7).
        """
        settings = self._observe().desired.settings
        if directories := stale_directories(self._written, settings):
            where = " and ".join(str(each) for each in directories)
            managed = f"{settings.cni_conf_dir} and {settings.cni_bin_dir}"
            note = (
                f"the installation of an earlier agent in {where} stays, as the agent now manages {managed}. Once this node is "
                f"ready and its container runtime reads only these, and unless they are the same under other names, remove "
                f"it with: {await self._cleaning_command(directories, settings)}"
            )
            _log.warning("the installation of an earlier agent stays", extra={"reason": note})
            self._record_event("StaleInstallation", note, warning=True)

    async def _cleaning_command(self, directories: Iterable[Path], settings: Settings) -> str:
        image = ""
        if settings.daemonset:
            namespace, name = settings.daemonset
            with suppress(ApiError):
                found = await self._api.get(f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}")
                image = found["spec"]["template"]["spec"]["containers"][0]["image"] if found else ""
        return cleaning_command(self._node_name, image, directories)

    def _record_event(self, reason: str, note: str, *, warning: bool) -> None:
        """Have an Event on the Node written."""
        if self._node_uid:
            self._events.add(node_reference(self._node_name, self._node_uid), reason, note, warning=warning)

    def _log_failure(self, reason: str) -> None:
        if reason != self._reason:
            self._reason = reason
            _log.warning("cannot write this node's IstioCNINode", extra={"reason": reason})
