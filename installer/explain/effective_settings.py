"""The settings in force that decide about pods, and who set each. Pure.

They are layered as in an agent: the active IstioControlPlane over the chart. Options of the command line come last.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.config.active import find_active_control_plane
from installer.config.desired import DesiredState, resolve_desired_state
from installer.config.kinds import SettingError
from installer.config.settings import DECIDING, Settings, declarations, parse_settings
from plugin.backend import Backend

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DEFAULT = "default"
ENVIRONMENT = "the environment"
# Besides them: whether the order of a pod's addresses is known, and the agents' namespace, which a resource must match.
_FROM_THE_CHART = (*DECIDING, "chained", "daemonset")


class Layer(NamedTuple):
    """An agent's environment variables, and their origin."""

    by: str
    variables: Mapping[str, str]


class Setting(NamedTuple):
    """A setting that decides: its name in chart and resource, its value, and its origin (`default`: nobody set it)."""

    key: str
    value: Any
    by: str


@dataclass(frozen=True)
class EffectiveSettings:
    """The settings in force.

    Attributes:
        settings: only those in DECIDING matter.
        by: the origin of each setting, by its name, except defaults.
        out: why the plugin is not installed; empty if it is.
        warnings: why the agents' settings may differ, and what to do.
    """

    settings: Settings = field(default_factory=lambda: parse_settings({"node_name": "any"}))
    by: Mapping[str, str] = field(default_factory=dict)
    out: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def backend(self) -> Backend:
        """The backend whose syntax the rules use."""
        return self.settings.redirect_backend or Backend.NFT

    @property
    def deciding(self) -> tuple[Setting, ...]:
        """The settings that decide, each with its origin."""
        values = vars(self.settings) | {"redirect_backend": self.settings.redirect_backend or "auto"}
        return tuple(
            Setting(each.key, values[each.name], self.by.get(each.name, DEFAULT))
            for each in declarations()
            if each.name in DECIDING
        )


def layer_settings(layers: Iterable[Layer], warnings: Iterable[str] = ()) -> EffectiveSettings:
    """Apply environment variables over the defaults, each layer over the previous ones; a default value has no origin."""
    values: dict[str, Any] = {}
    by: dict[str, str] = {}
    messages = [*warnings]
    for layer in layers:
        for each in declarations():
            if each.name not in _FROM_THE_CHART or each.variable not in layer.variables:
                continue
            try:
                values[each.name] = each.kind.parse_text(layer.variables[each.variable])
            except SettingError as error:
                messages.append(f"{layer.by}: {each.variable}: {error}: ignored here; it may be of another release")
                continue
            by[each.name] = DEFAULT if values[each.name] == each.kind.parse(each.default) else layer.by
    return EffectiveSettings(replace(EffectiveSettings().settings, **values), by, warnings=tuple(messages))


def apply_control_planes(base: EffectiveSettings, resources: Iterable[Mapping[str, Any]]) -> EffectiveSettings:
    """Apply the active IstioControlPlane over the chart's settings.

    `base` are the chart's settings, `resources` all IstioControlPlanes.
    """
    resources = [*resources]
    active = find_active_control_plane(resources)
    if active is None:
        return base
    name = f"IstioControlPlane {active['metadata']['namespace']}/{active['metadata']['name']}"
    desired = resolve_desired_state(base.settings, resources, DesiredState(base.settings))
    by = {**base.by, **dict.fromkeys(desired.changes, name)}
    problems = tuple(
        f"{name} is invalid, {problem}: running agents keep the last valid settings, which only they know; the chart's "
        "settings are assumed here. Correct the resource, or set the agents' settings as options"
        for problem in desired.problems
    )
    return EffectiveSettings(desired.settings, by, desired.reason, (*base.warnings, *problems))


def apply_options(base: EffectiveSettings, given: Mapping[str, Any]) -> EffectiveSettings:
    """Apply the options of the command line: values by the settings' names."""
    flags = {each.name: each.flag for each in declarations() if each.name in given}
    return replace(base, settings=replace(base.settings, **given), by={**base.by, **flags})
