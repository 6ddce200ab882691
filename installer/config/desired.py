"""What this node is to be like: the chart's settings, refined by the IstioControlPlane that counts (D6, D10). Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.config.active import find_active_control_plane, is_being_deleted
from installer.config.control_plane import ControlPlaneSpec, read_control_plane
from installer.config.schema import Problem
from installer.config.settings import Settings, declarations

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class ControlPlaneRef(NamedTuple):
    """An IstioControlPlane, and which generation of what it says."""

    namespace: str
    name: str
    uid: str
    generation: int


@dataclass(frozen=True)
class DesiredState:
    """What is to be.

    Attributes:
        settings: those in force.
        installed: whether the plugin is to be on the node.
        reason: why it is not to be; empty if it is.
        control_plane: whose settings they are; None: the chart's.
        problems: of the resource that counts, which asks for nothing as long as it has some.
        changes: what of the settings is not the chart's: text by setting.
    """

    settings: Settings
    installed: bool = True
    reason: str = ""
    control_plane: ControlPlaneRef | None = None
    problems: tuple[Problem, ...] = ()
    changes: tuple[tuple[str, str], ...] = ()

    @property
    def by_value(self) -> tuple[Settings, bool]:
        """What makes a difference on the node."""
        return self.settings, self.installed


def resolve_desired_state(base: Settings, resources: Iterable[Mapping[str, Any]], last: DesiredState) -> DesiredState:
    """Say what follows from the resources as they are now.

    A resource that is wrong changes nothing: what the last good one said stays. One that is deleted takes the plugin with
    it (D7), and so does one that is suddenly no more.

    Args:
        base: the chart's settings.
        resources: all IstioControlPlanes.
        last: what was said last.
    """
    counts = find_active_control_plane(resources)
    if counts is None:
        if last.control_plane is None:
            return last
        return replace(last, installed=False, reason=f"{_named(last.control_plane)} is deleted", problems=())
    read = read_control_plane(counts)
    if not isinstance(read, ControlPlaneSpec) and not is_being_deleted(counts):
        return replace(last, problems=read)
    if isinstance(read, ControlPlaneSpec) and not is_being_deleted(counts) and (elsewhere := _elsewhere(base, read)):
        return replace(last, problems=(elsewhere,))
    metadata = counts["metadata"]
    now = ControlPlaneRef(metadata["namespace"], metadata["name"], metadata["uid"], metadata.get("generation", 1))
    if is_being_deleted(counts) or not isinstance(read, ControlPlaneSpec):
        return DesiredState(last.settings, False, f"{_named(now)} is being deleted", now, changes=last.changes)
    # What a running agent can change is laid over the chart's settings; the rest comes with its next start.
    live = {each.name: each for each in declarations() if each.live}
    changes = {name: text for name, text in read.agents.items() if name in live}
    values: dict[str, Any] = {name: live[name].parse(text) for name, text in changes.items()}
    reason = "" if read.enabled else f"{_named(now)} says enabled: false"
    return DesiredState(replace(base, **values), read.enabled, reason, now, changes=tuple(changes.items()))


def _elsewhere(base: Settings, read: ControlPlaneSpec) -> Problem | None:
    """Say what is wrong with a resource that wants the agents in another namespace than the chart has put them into."""
    if base.daemonset is None or read.namespace in (None, base.daemonset.namespace):
        return None
    seen = f"saw {read.namespace}, expected {base.daemonset.namespace}, where the chart has put the agents"
    return Problem("spec.cni.components.cni.namespace", seen)


def _named(control_plane: ControlPlaneRef) -> str:
    return f"IstioControlPlane {control_plane.namespace}/{control_plane.name}"
