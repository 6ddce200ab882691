"""Applies the controller's fields of the DaemonSet, less and less often while another program keeps reverting them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.controller import plan, pod_template
from installer.controller.status import Fault
from installer.fleet.objects import annotation
from installer.kube.api_error import ApiError
from installer.ratelimit.limiter import ROLLOUTS, RateLimiter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from installer.controller.client import Api
    from installer.controller.plan import Plan, World

_log = logging.getLogger(__name__)


class _Applied(NamedTuple):
    """The applied object, and the API server's result: its status and foreign annotations may change."""

    wanted: pod_template.Wish
    generation: int
    annotation: str | None


class Roller:
    """Keeps the DaemonSet in its desired state."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._applied: _Applied | None = None
        self._limiter = RateLimiter(ROLLOUTS)
        self._reverter = ""
        self.is_refused = False  # to park it

    async def roll_out(
        self, world: World, desired: Plan, *, park: bool, clock: float
    ) -> tuple[Mapping[str, Any] | None, list[Fault]]:
        """Apply the desired state, if the DaemonSet differs from it.

        `clock` is in seconds of a monotonic clock.

        Returns:
            The DaemonSet as written, if it was; and the faults that prevented it.

        Raises:
            ApiError: if the request should be retried soon.
        """
        observed = world.daemonset
        try:
            wish = plan.desired_daemonset(world, desired, park=park)
        except pod_template.RolloutError as error:
            return None, [Fault("ChartValuesNotFound", str(error))] if desired.active else []
        if wish is None or observed is None:
            return None, self._conflict(world, clock)
        # A value that the API server normalizes, such as 1000m to 1, is not applied forever.
        if self._applied == _applied(wish, observed):
            return None, []
        is_same = self._applied is not None and self._applied.wanted == wish
        if is_same:
            self._reverter = pod_template.name_other_writer(observed)
        if is_same and self._limiter.wait(clock):
            return None, self._conflict(world, clock)
        try:
            written = await self._api.apply_daemonset(wish, observed)
        except ApiError as error:
            if error.status in (404, 409):  # it is gone or has changed meanwhile, and the watch will report it
                return None, []
            if error.is_transient:
                raise
            self.is_refused = park
            return None, [Fault("RolloutFailed", f"cannot update the DaemonSet: {error}")]
        self._applied, self.is_refused = _applied(wish, written), False
        if is_same:
            self._limiter.done(clock)
        _log.info("applied the DaemonSet", extra={"parked": pod_template.is_parked(written)})
        return written, self._conflict(world, clock)

    def _conflict(self, world: World, clock: float) -> list[Fault]:
        """Name the manager that keeps reverting the applied fields; once they are applied again, the object does not."""
        if not self._limiter.cooldown_left(clock) or world.daemonset is None:
            return []
        metadata = world.daemonset["metadata"]
        message = (
            f"DaemonSet {metadata['namespace']}/{metadata['name']}: {self._reverter} keeps reverting "
            "the fields that the resource sets, and each time all agents are replaced; exclude these fields there (see GitOps "
            "in the chart's README), or set the same in the chart's values"
        )
        return [Fault("Conflict", message)]


def _applied(wish: pod_template.Wish, daemonset: Mapping[str, Any]) -> _Applied:
    generation = daemonset["metadata"].get("generation", 0)
    return _Applied(wish, generation, annotation(daemonset, pod_template.RESOURCE_VALUES))
