"""What an IstioControlPlane asks of this agent, of all that the resource may say (D10). Pure.

`unvalidatedValues.cni` wins over `values.cni`, whose `hub` and `tag` default to those of the spec. A resource that is wrong
asks for nothing: whoever follows it stays with what the last good one said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from installer.config import schema
from installer.config.schema import Problem
from installer.config.settings import SettingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

GROUP, VERSION, KIND, PLURAL = "install.istio.io", "v1alpha2", "IstioControlPlane", "istiocontrolplanes"


@dataclass(frozen=True)
class ControlPlaneSpec:
    """What a resource asks for.

    Attributes:
        enabled: whether there is to be a CNI plugin at all.
        namespace: where its parts are to run; None: where the resource is.
        agents: text by setting, for the settings that the resource sets.
        daemonset: the other values, as they were given.
        notes: what of it has no effect, each in a sentence.
    """

    enabled: bool
    namespace: str | None
    agents: Mapping[str, str]
    daemonset: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def read_control_plane(resource: Mapping[str, Any]) -> ControlPlaneSpec | tuple[Problem, ...]:
    """Read a resource.

    Returns:
        What it asks for; or what is wrong with it, each with the path of the field.
    """
    found: list[Problem] = []
    spec = _block(resource, "spec", "", found)
    validated = _block(_block(spec, "values", "spec", found), "cni", "spec.values", found)
    unvalidated = _block(_block(spec, "unvalidatedValues", "spec", found), "cni", "spec.unvalidatedValues", found)
    cni = _block(spec, "cni", "spec", found)
    component = _block(_block(cni, "components", "spec.cni", found), "cni", "spec.cni.components", found)
    found += schema.problems("spec.values.cni", validated, known_alone=True, types_alone=False)
    found += schema.problems("spec.unvalidatedValues.cni", unvalidated, known_alone=False, types_alone=True)
    images = {key: spec[key] for key in ("hub", "tag") if key in spec}
    found += schema.problems("spec", images, known_alone=False, types_alone=False)
    enabled = _typed(cni, "enabled", bool, "spec.cni", found)
    namespace = _typed(component, "namespace", str, "spec.cni.components.cni", found)
    given = {
        name: value
        for name, value in (images | dict(validated) | dict(unvalidated)).items()
        if name in schema.schemas()
    }
    if not found:
        found += _unparsed(given, unvalidated)
    if found:
        return tuple(found)
    agents = schema.of_agents()
    return ControlPlaneSpec(
        enabled=enabled is not False,
        namespace=namespace,
        agents={agents[name].name: schema.as_text(value) for name, value in given.items() if name in agents},
        daemonset={name: value for name, value in given.items() if name not in agents},
        notes=tuple(schema.without_effect(unvalidated, schema.schemas())),
    )


def _unparsed(given: Mapping[str, Any], unvalidated: Mapping[str, Any]) -> Iterator[Problem]:
    """Find values that are of the right type, and that their settings cannot have all the same."""
    for name, declared in schema.of_agents().items():
        if name in given:
            try:
                declared.parse(schema.as_text(given[name]))
            except SettingError as error:
                block = "unvalidatedValues" if name in unvalidated else "values"
                yield Problem(f"spec.{block}.cni.{name}", str(error))


def _block(parent: Mapping[str, Any], key: str, path: str, found: list[Problem]) -> Mapping[str, Any]:
    return _typed(parent, key, dict, path, found) or {}


def _typed(parent: Mapping[str, Any], key: str, kind: type, path: str, found: list[Problem]) -> Any:
    value = parent.get(key)
    if value is not None and not isinstance(value, kind):
        names = {dict: "a mapping", bool: "true or false", str: "a string"}
        found.append(Problem(f"{path}.{key}".lstrip("."), f"saw {value!r:.80}, expected {names[kind]}"))
        return None
    return value
