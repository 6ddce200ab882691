"""The settings by which the agents of a cluster decide about pods, and who set each. Pure.

As an agent takes them: the chart's, refined by the IstioControlPlane that counts. Above all is what the command line says.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.config.active import find_active_control_plane
from installer.config.desired import DesiredState, resolve_desired_state
from installer.config.kinds import SettingError
from installer.config.policy import policy
from installer.config.settings import DECIDING, Settings, declarations, parse_settings
from plugin.backend import Backend

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from plugin.decision import Policy

DEFAULT = "default"
ENVIRONMENT = "the environment"
# Besides: whether the order of a pod's addresses is known; and where the agents are, which not every resource may agree with.
_FROM_THE_CHART = (*DECIDING, "chained", "daemonset")


class Layer(NamedTuple):
    """Environment variables as an agent is given them, and who says them."""

    by: str
    variables: Mapping[str, str]


class Setting(NamedTuple):
    """One of the settings that decide: its name in chart and resource, its value, and who set it; `default` is nobody."""

    key: str
    value: Any
    by: str


@dataclass(frozen=True)
class InForce:
    """The settings in force.

    Attributes:
        settings: of which those in DECIDING matter.
        by: who set what, by the setting's name, of those that somebody did.
        out: why the plugin is out of the nodes; empty if it is not.
        warnings: why they may not be those of the agents, and what to do.
    """

    settings: Settings = field(default_factory=lambda: parse_settings({"node_name": "any"}))
    by: Mapping[str, str] = field(default_factory=dict)
    out: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def policy(self) -> Policy:
        """What they say about pods."""
        return policy(self.settings)

    @property
    def backend(self) -> Backend:
        """In whose words rules are written."""
        return self.settings.redirect_backend or Backend.NFT

    @property
    def deciding(self) -> tuple[Setting, ...]:
        """Those that decide, each with its origin."""
        values = vars(self.settings) | {"redirect_backend": self.settings.redirect_backend or "auto"}
        return tuple(
            Setting(each.key, values[each.name], self.by.get(each.name, DEFAULT))
            for each in declarations()
            if each.name in DECIDING
        )


def charts(layers: Iterable[Layer], warnings: Iterable[str] = ()) -> InForce:
    """Lay variables over the defaults, each layer over those before; one that says the default says nothing."""
    values: dict[str, Any] = {}
    by: dict[str, str] = {}
    warned = [*warnings]
    for layer in layers:
        for each in declarations():
            if each.name not in _FROM_THE_CHART or each.variable not in layer.variables:
                continue
            try:
                values[each.name] = each.kind.parse_text(layer.variables[each.variable])
            except SettingError as error:
                warned.append(f"{layer.by}: {each.variable}: {error}: it is left out here; is it of another release?")
                continue
            by[each.name] = DEFAULT if values[each.name] == each.kind.parse(each.default) else layer.by
    return InForce(replace(InForce().settings, **values), by, warnings=tuple(warned))


def refined(base: InForce, resources: Iterable[Mapping[str, Any]]) -> InForce:
    """Lay the IstioControlPlane that counts over the chart's settings.

    Args:
        base: the chart's.
        resources: all IstioControlPlanes.
    """
    resources = [*resources]
    counts = find_active_control_plane(resources)
    if counts is None:
        return base
    name = f"IstioControlPlane {counts['metadata']['namespace']}/{counts['metadata']['name']}"
    now = resolve_desired_state(base.settings, resources, DesiredState(base.settings))
    by = {**base.by, **dict.fromkeys(now.changes, name)}
    wrong = tuple(
        f"{name} is wrong, {problem}: agents that run stay with what was last right, which only they know; the "
        "chart's settings are taken for that. Correct it, or give what they are as options"
        for problem in now.problems
    )
    return InForce(now.settings, by, now.reason, (*base.warnings, *wrong))


def overruled(base: InForce, given: Mapping[str, Any]) -> InForce:
    """Lay over it what the command line says: values by the settings' names."""
    return replace(base, settings=replace(base.settings, **given), by={**base.by, **dict(_flags(given))})


def _flags(given: Iterable[str]) -> Iterator[tuple[str, str]]:
    return ((each.name, each.flag) for each in declarations() if each.name in given)
