"""Applies the controller's fields of the DaemonSet, less and less often while another program keeps reverting them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.controller import plan, pod_template
from installer.controller.status import Fault
from installer.kube.api_error import ApiError
from installer.ratelimit.limiter import ROLLOUTS, RateLimiter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from installer.controller.client import Api
    from installer.controller.plan import Plan, World

_log = logging.getLogger(__name__)


class _Applied(NamedTuple):
    """What was applied, and what the API server made of it: its status may change, and annotations of others."""

    wanted: pod_template.Wish
    generation: int
    annotation: str | None


class Roller:
    """Keeps the DaemonSet in its desired state."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._applied: _Applied | None = None
        self._limiter = RateLimiter(ROLLOUTS)
        self.is_refused = False  # to park it

    async def roll_out(
        self, world: World, made: Plan, *, park: bool, clock: float
    ) -> tuple[Mapping[str, Any] | None, list[Fault]]:
        """Apply the desired state, if the DaemonSet differs from it.

        Args:
            world: what is seen.
            made: what is to be.
            park: whether it is time to park the DaemonSet.
            clock: seconds of a monotonic clock.

        Returns:
            The DaemonSet if it was written, as it is now; and why it could not be.

        Raises:
            ApiError: if the API server is to be asked again soon.
        """
        seen = world.daemonset
        try:
            wished = plan.daemonset(world, made, park=park)
        except pod_template.RolloutError as error:
            return None, [Fault("ChartValuesNotFound", str(error))] if made.active else []
        if wished is None or seen is None:
            return None, self._contested(world, clock)
        # What was applied and is written otherwise, such as 1000m for 1, is not applied for ever.
        if self._applied == _applied(wished, seen):
            return None, []
        again = self._applied is not None and self._applied.wanted == wished
        if again and self._limiter.wait(clock):
            return None, self._contested(world, clock)
        try:
            written = await self._api.apply_daemonset(wished, seen)
        except ApiError as error:
            if error.status in (404, 409):  # it is gone, or has changed meanwhile, and the watch is about to say so
                return None, []
            if error.is_transient:
                raise
            self.is_refused = park
            return None, [Fault("RolloutFailed", f"cannot update the DaemonSet: {error}")]
        self._applied, self.is_refused = _applied(wished, written), False
        if again:
            self._limiter.done(clock)
        _log.info("applied the DaemonSet", extra={"parked": pod_template.is_parked(written)})
        return written, self._contested(world, clock)

    def _contested(self, world: World, clock: float) -> list[Fault]:
        """Name who reverts what was applied, while that goes on."""
        if not self._limiter.cooldown_left(clock) or world.daemonset is None:
            return []
        metadata = world.daemonset["metadata"]
        said = (
            f"DaemonSet {metadata['namespace']}/{metadata['name']}: {pod_template.others(world.daemonset)} keeps undoing what "
            "the resource says of it, and each time all agents are replaced; have it leave these fields alone (the chart's "
            "README, GitOps, has them), or say the same in the chart's values"
        )
        return [Fault("Conflict", said)]


def _applied(wanted: pod_template.Wish, seen: Mapping[str, Any]) -> _Applied:
    metadata = seen["metadata"]
    written = (metadata.get("annotations") or {}).get(pod_template.RESOURCE_VALUES)
    return _Applied(wanted, metadata.get("generation", 0), written)
