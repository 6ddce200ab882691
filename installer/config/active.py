"""Which of several IstioControlPlanes is active: the oldest that is not being deleted, for all settings. Pure.

Agents and controller apply the same rule to what each observes, so they need not communicate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def find_active_control_plane(resources: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Find the active resource; None if there is none.

    One that is being deleted stays active until it is gone, if there is no other.
    """
    return min(resources, key=lambda each: (is_being_deleted(each), _age(each)), default=None)


def is_being_deleted(resource: Mapping[str, Any]) -> bool:
    """Return whether a resource is being deleted."""
    return bool(resource["metadata"].get("deletionTimestamp"))


def _age(resource: Mapping[str, Any]) -> tuple[str, str, str]:
    metadata = resource["metadata"]
    return metadata.get("creationTimestamp", ""), metadata["namespace"], metadata["name"]
