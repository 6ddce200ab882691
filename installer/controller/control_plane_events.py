"""Makes the Events about an IstioControlPlane from the change of its status. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from installer.controller.status import ERROR, HEALTHY, NONE, RECONCILING, UPDATING
from installer.fleet.objects import component_status, find_condition
from installer.fleet.reasons import cause

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Event(NamedTuple):
    """One Event."""

    warning: bool
    reason: str
    message: str


def build_events(before: Mapping[str, Any], after: Mapping[str, Any], *, terminating: bool) -> Iterator[Event]:
    """Yield the Events of a change of status.

    `before` is empty if there was no status. Of a resource that is terminating, `finalizer.decide_uninstall` makes the final
    Event.
    """
    new = component_status(after)
    fault = find_condition(after, "Reconciled")
    if fault["reason"] == "Removing":
        if _reason_and_message(before)[0] != "Removing":
            yield Event(warning=False, reason="UninstallStarted", message=fault["message"])
    elif fault["status"] == "False":
        if (fault["reason"], fault["message"]) != _reason_and_message(before):
            kind = "InvalidSettings" if fault["reason"] == "Invalid" else fault["reason"]
            yield Event(warning=True, reason=kind, message=fault["message"])
        return
    yield from _changes(before, after, removing=fault["reason"] == "Removing", terminating=terminating)
    if new["status"] == ERROR:
        yield from _unhealthy(before, after)


def _changes(
    before: Mapping[str, Any], after: Mapping[str, Any], *, removing: bool, terminating: bool
) -> Iterator[Event]:
    old, new = component_status(before), component_status(after)
    status, generation = new["status"], after["observedGeneration"]
    is_new_generation = generation != before.get("observedGeneration")
    if status == old.get("status") and not is_new_generation:
        return
    message = f"generation {generation}: {new['statusString']}"
    if status == UPDATING and not removing:
        yield Event(warning=False, reason="RolloutStarted", message=message)
    elif status == HEALTHY:
        recovered = not is_new_generation and old.get("status") in (ERROR, RECONCILING)
        yield Event(warning=False, reason="Recovered" if recovered else "RolloutCompleted", message=message)
    elif status == NONE and not terminating:
        yield Event(warning=False, reason="Uninstalled", message=message)


def _unhealthy(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Event]:
    known = {(each["node"], cause(each["reason"])) for each in before.get("unhealthyNodes") or ()}
    for each in after.get("unhealthyNodes") or ():
        if (each["node"], cause(each["reason"])) not in known:
            message = f"node {each['node']}: {each['reason']}: {each['message']}"
            yield Event(warning=True, reason="NodeUnhealthy", message=message)


def _reason_and_message(status: Mapping[str, Any]) -> tuple[str, str]:
    found = find_condition(status, "Reconciled")
    return found.get("reason", ""), found.get("message", "")
