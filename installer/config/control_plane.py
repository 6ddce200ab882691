"""Parses an IstioControlPlane (D10). Pure.

`unvalidatedValues.cni` overrides `values.cni`, whose `hub` and `tag` default to those of the spec. An invalid resource sets
nothing: agents and controller keep the last valid settings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from installer.config.declaration import Setting
from installer.config.kinds import TYPES, SettingError
from installer.config.values import Problem, find_problems, resource_values, without_effect

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

GROUP, VERSION, KIND, PLURAL = "install.istio.io", "v1alpha2", "IstioControlPlane", "istiocontrolplanes"


class InvalidControlPlaneError(ValueError):
    """A resource with values that are not allowed.

    Attributes:
        problems: everything that is wrong with it, each with the path of the field.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


@dataclass(frozen=True)
class ControlPlaneSpec:
    """A parsed resource.

    Attributes:
        enabled: whether the plugin is installed on the nodes.
        namespace: of agents and controller; None: not set.
        given: the values that it sets, by key, as written.
        settings: those of them that a running agent applies, by the settings' names.
        notes: its fields without effect, each in a sentence.
    """

    enabled: bool
    namespace: str | None
    given: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_control_plane(resource: Mapping[str, Any]) -> ControlPlaneSpec:
    """Read a resource.

    Raises:
        InvalidControlPlaneError: if anything is wrong with it.
    """
    problems: list[Problem] = []
    spec = _block(resource, "spec", "", problems)
    validated = _block(_block(spec, "values", "spec", problems), "cni", "spec.values", problems)
    unvalidated = _block(_block(spec, "unvalidatedValues", "spec", problems), "cni", "spec.unvalidatedValues", problems)
    cni = _block(spec, "cni", "spec", problems)
    component = _block(_block(cni, "components", "spec.cni", problems), "cni", "spec.cni.components", problems)
    problems += find_problems("spec.values.cni", validated, known_alone=True, types_alone=False)
    problems += find_problems("spec.unvalidatedValues.cni", unvalidated, known_alone=False, types_alone=True)
    images = {key: spec[key] for key in ("hub", "tag") if key in spec}
    problems += find_problems("spec", images, known_alone=False, types_alone=False)
    enabled = _typed(cni, "enabled", "boolean", "spec.cni", problems)
    namespace = _typed(component, "namespace", "string", "spec.cni.components.cni", problems)
    known = resource_values()
    given = {name: value for name, value in (images | {**validated, **unvalidated}).items() if name in known}
    settings: dict[str, Any] = {}
    if not problems:
        problems += _convert(given, unvalidated, settings)
    if problems:
        raise InvalidControlPlaneError(problems)
    notes = tuple(without_effect(unvalidated, known))
    return ControlPlaneSpec(enabled is not False, namespace, given, settings, notes)


def _convert(given: Mapping[str, Any], unvalidated: Mapping[str, Any], settings: dict[str, Any]) -> Iterator[Problem]:
    """Convert the values that a running agent applies; report those of the right type that are not allowed."""
    for name, declared in resource_values().items():
        if name in given and isinstance(declared, Setting) and declared.live:
            try:
                settings[declared.name] = declared.kind.convert(given[name])
            except SettingError as error:
                block = "unvalidatedValues" if name in unvalidated else "values"
                yield Problem(f"spec.{block}.cni.{name}", str(error))


def _block(parent: Mapping[str, Any], key: str, path: str, problems: list[Problem]) -> Mapping[str, Any]:
    return _typed(parent, key, "object", path, problems) or {}


def _typed(parent: Mapping[str, Any], key: str, kind: str, path: str, problems: list[Problem]) -> Any:
    value = parent.get(key)
    if value is not None and not isinstance(value, {"object": dict, "boolean": bool, "string": str}[kind]):
        problems.append(Problem(f"{path}.{key}".lstrip("."), f"saw {value!r:.80}, expected {TYPES[kind]}"))
        return None
    return value
