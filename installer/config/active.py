"""Which of several IstioControlPlanes counts: the oldest that stays, for everything. Pure.

Agents and controller decide it alike, from what each of them sees, and need not tell one another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def find_active_control_plane(resources: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Find the resource that counts; one that is being deleted counts until it is gone, if there is no other.

    Args:
        resources: IstioControlPlanes, as the API server has them.

    Returns:
        One of them; None if there is none.
    """
    return min(resources, key=lambda each: (is_being_deleted(each), _age(each)), default=None)


def is_being_deleted(resource: Mapping[str, Any]) -> bool:
    """Tell whether a resource is being deleted."""
    return bool(resource["metadata"].get("deletionTimestamp"))


def _age(resource: Mapping[str, Any]) -> tuple[str, str, str]:
    metadata = resource["metadata"]
    return metadata.get("creationTimestamp", ""), metadata["namespace"], metadata["name"]
