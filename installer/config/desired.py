"""The desired state of a node: the chart's settings, refined by the active IstioControlPlane (D6, D10). Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.config.active import find_active_control_plane, is_being_deleted
from installer.config.control_plane import ControlPlaneSpec, InvalidControlPlaneError, read_control_plane
from installer.config.settings import Settings, declarations
from installer.config.values import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class ControlPlaneRef(NamedTuple):
    """An IstioControlPlane and its generation."""

    namespace: str
    name: str
    uid: str
    generation: int

    def __str__(self) -> str:
        return f"IstioControlPlane {self.namespace}/{self.name}"


@dataclass(frozen=True)
class DesiredState:
    """The desired state of a node.

    Attributes:
        settings: those in force.
        installed: whether the plugin is installed on the node.
        reason: why it is not; empty if it is.
        control_plane: the source of the settings; None: the chart.
        problems: those of the active control plane, which sets nothing while it has any.
        changes: the values that it overrides, as written, by the setting's name.
    """

    settings: Settings
    installed: bool = True
    reason: str = ""
    control_plane: ControlPlaneRef | None = None
    problems: tuple[Problem, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def by_value(self) -> tuple[Settings, bool]:
        """The part that matters to the node."""
        return self.settings, self.installed


def resolve_desired_state(base: Settings, resources: Iterable[Mapping[str, Any]], last: DesiredState) -> DesiredState:
    """Resolve the resources to the desired state.

    An invalid resource changes nothing: the last valid settings stay in force. Deleting the resource, or losing it in any
    other way, uninstalls the plugin (D7). `base` are the chart's settings, `last` is the previous result.
    """
    active = find_active_control_plane(resources)
    if active is None:
        if last.control_plane is None:
            return last
        return replace(last, installed=False, reason=f"{last.control_plane} is deleted", problems=())
    metadata = active["metadata"]
    ref = ControlPlaneRef(metadata["namespace"], metadata["name"], metadata["uid"], metadata.get("generation", 1))
    if is_being_deleted(active):
        return DesiredState(last.settings, False, f"{ref} is being deleted", ref, changes=last.changes)
    try:
        spec = read_control_plane(active)
    except InvalidControlPlaneError as error:
        return replace(last, problems=error.problems)
    if elsewhere := _wrong_namespace(base, spec):
        return replace(last, problems=(elsewhere,))
    reason = "" if spec.enabled else f"{ref} says enabled: false"
    changes = {each.name: spec.given[each.key] for each in declarations() if each.name in spec.settings}
    return DesiredState(replace(base, **spec.settings), spec.enabled, reason, ref, changes=changes)


def _wrong_namespace(base: Settings, spec: ControlPlaneSpec) -> Problem | None:
    """Return the problem of a resource that sets another namespace for the agents than the chart's."""
    if base.daemonset is None or spec.namespace in (None, base.daemonset.namespace):
        return None
    seen = f"saw {spec.namespace}, expected {base.daemonset.namespace}, where the chart has put the agents"
    return Problem("spec.cni.components.cni.namespace", seen)
