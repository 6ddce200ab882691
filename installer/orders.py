"""What this node is to be like: the chart's settings, refined by the IstioControlPlane that counts (D6, D10). Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.governing import governing, is_going
from installer.resource import Wanted, wanted
from installer.settings import Settings, declarations

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from installer.values import Problem


class ControlPlane(NamedTuple):
    """An IstioControlPlane, and which generation of what it says."""

    namespace: str
    name: str
    uid: str
    generation: int


@dataclass(frozen=True)
class Orders:
    """What is to be.

    Attributes:
        settings: those in force.
        installed: whether the plugin is to be on the node.
        reason: why it is not to be; empty if it is.
        control_plane: whose settings they are; None: the chart's.
        problems: of the resource that counts, which asks for nothing as long as it has some.
    """

    settings: Settings
    installed: bool = True
    reason: str = ""
    control_plane: ControlPlane | None = None
    problems: tuple[Problem, ...] = ()

    @property
    def by_value(self) -> tuple[Settings, bool]:
        """What makes a difference on the node."""
        return self.settings, self.installed


def orders(base: Settings, resources: Iterable[Mapping[str, Any]], last: Orders) -> Orders:
    """Say what follows from the resources as they are now.

    A resource that is wrong changes nothing: what the last good one said stays. One that is deleted takes the plugin with
    it (D7), and so does one that is suddenly no more.

    Args:
        base: the chart's settings.
        resources: all IstioControlPlanes.
        last: what was said last.
    """
    counts = governing(resources)
    if counts is None:
        if last.control_plane is None:
            return last
        return replace(last, installed=False, reason=f"{_named(last.control_plane)} is deleted", problems=())
    read = wanted(counts)
    if not isinstance(read, Wanted) and not is_going(counts):
        return replace(last, problems=read)
    metadata = counts["metadata"]
    now = ControlPlane(metadata["namespace"], metadata["name"], metadata["uid"], metadata.get("generation", 1))
    if is_going(counts) or not isinstance(read, Wanted):
        return Orders(last.settings, False, f"{_named(now)} is being deleted", now)
    if not read.enabled:
        return Orders(_refined(base, read), False, f"{_named(now)} says enabled: false", now)
    return Orders(_refined(base, read), True, "", now)


def _refined(base: Settings, read: Wanted) -> Settings:
    """Lay what a running agent can change over the chart's settings; the rest comes with its next start."""
    live = {each.name: each for each in declarations() if each.live}
    changes: dict[str, Any] = {name: live[name].parse(text) for name, text in read.agents.items() if name in live}
    return replace(base, **changes)


def _named(control_plane: ControlPlane) -> str:
    return f"IstioControlPlane {control_plane.namespace}/{control_plane.name}"
