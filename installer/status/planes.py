"""Judges the IstioControlPlanes: which one is active, each one's problems, and conflicts with the active one. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from installer.config.active import find_active_control_plane
from installer.config.control_plane import ControlPlaneSpec, InvalidControlPlaneError, read_control_plane
from installer.config.values import resource_values
from installer.fleet.objects import component_status, find_condition, spec_changed
from installer.kube.times import parse_rfc3339
from installer.status.model import ControlPlane

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from installer.config.values import Problem
    from installer.status.model import Object


def judge_planes(resources: Sequence[Object]) -> tuple[ControlPlane, ...]:
    """Judge the resources; the active one is first, then the others by age."""
    active = find_active_control_plane(resources)
    judged = [_plane(each, active) for each in resources]
    return tuple(sorted(judged, key=lambda each: (not each.active, str(each.created), each.namespace, each.name)))


def _plane(resource: Object, first: Object | None) -> ControlPlane:
    metadata, status = resource["metadata"], resource.get("status") or {}
    spec, problems = _read(resource)
    component = component_status(status)
    degraded = find_condition(status, "Degraded")
    active = first is not None and first["metadata"].get("uid") == metadata.get("uid")
    return ControlPlane(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        active=active,
        enabled=spec.enabled if spec else None,
        terminating=bool(metadata.get("deletionTimestamp")),
        status=component.get("status") or "",
        message=component.get("error") or component.get("statusString") or "",
        degraded=degraded.get("reason") or "" if degraded.get("status") == "True" else "",
        problems=tuple(dict.fromkeys(problems)),
        conflicts=() if active or first is None else tuple(_contradictions(spec, _read(first)[0])),
        generation=metadata.get("generation") or 0,
        observed=status.get("observedGeneration") or 0,
        created=parse_rfc3339(metadata.get("creationTimestamp")),
        changed=spec_changed(resource),
    )


def _read(resource: Object) -> tuple[ControlPlaneSpec | None, tuple[Problem, ...]]:
    """Parse a resource; returns its problems as well."""
    try:
        return read_control_plane(resource), ()
    except InvalidControlPlaneError as error:
        return None, error.problems


def _contradictions(one: ControlPlaneSpec | None, other: ControlPlaneSpec | None) -> Iterator[str]:
    """Name the values in which two resources differ, as users write them; none if one is invalid."""
    if one is None or other is None:
        return
    if one.enabled != other.enabled:
        yield "enabled"
    if one.namespace != other.namespace:
        yield "namespace"
    for key in resource_values():
        if one.given.get(key) != other.given.get(key):
            yield key
