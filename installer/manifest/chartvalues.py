"""The chart values of an IstioControlPlane, and the fields of it that have no effect. Pure."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from installer.config.control_plane import InvalidControlPlaneError, read_control_plane
from installer.config.values import Problem, no_such_value, resource_values, without_effect
from installer.manifest.overlay import deep_merge

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

PLATFORM = "platform"  # the chart's value of that name; only this command reads it in a resource
OF_THE_SPEC = ("cni", "values", "unvalidatedValues", "hub", "tag", PLATFORM)
TYPO = 0.8  # the least similarity to one of our names, of 1, that makes a name a typo of it


class Refused(Exception):  # noqa: N818 - the resource is at fault
    """The resource is invalid: a line for each problem, with the path of the field."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))


@dataclass(frozen=True)
class Request:
    """The input for rendering the chart.

    Attributes:
        enabled: whether to install a CNI plugin at all.
        namespace: of the release.
        values: the chart's.
        notes: the resource's fields without effect, each in a sentence.
    """

    enabled: bool
    namespace: str
    values: Mapping[str, Any]
    notes: tuple[str, ...]


def build_request(resource: Mapping[str, Any], known: Collection[str]) -> Request:
    """Convert a resource to chart values.

    `known` are the names that the chart has under `cni`.

    Raises:
        Refused: with the path of each field that is wrong.
    """
    spec = _block(resource, "spec")
    problems = [*_wrong(spec)]
    try:
        parsed = read_control_plane(resource)
    except InvalidControlPlaneError as error:
        raise Refused([*error.problems, *problems]) from None
    if problems:
        raise Refused(problems)
    unvalidated = _block(spec, "unvalidatedValues", "cni")
    given = {key: spec[key] for key in ("hub", "tag") if key in spec} | _block(spec, "values", "cni") | unvalidated
    cni = {name: value for name, value in given.items() if name in known}
    if parsed.namespace:
        cni["namespace"] = parsed.namespace
    return Request(
        enabled=parsed.enabled,
        namespace=parsed.namespace or resource["metadata"]["namespace"],
        values={"cni": cni} | {name: value for name, value in spec.items() if name == PLATFORM},
        notes=(*_misplaced(spec), *without_effect(unvalidated, known), *_unread(_block(spec, "cni", "components"))),
    )


def move_set_values(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Move the values that `--set` put at the top of a spec, `after`, as the 2019 guide does: `--set cniBinDir=/x`.

    Raises:
        Refused: with each unknown name.
    """
    spec = {name: value for name, value in after.items() if name in before or name in OF_THE_SPEC}
    cni = {name: value for name, value in after.items() if name not in spec}
    known = {*OF_THE_SPEC, *resource_values()}
    if problems := [Problem(f"--set {name}", no_such_value(name, known)) for name in cni if name not in known]:
        raise Refused(problems)
    return deep_merge(spec, {"values": {"cni": cni}} if cni else {})


def _block(parent: Mapping[str, Any], *path: str) -> dict[str, Any]:
    value: object = parent
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _wrong(spec: Mapping[str, Any]) -> Iterator[Problem]:
    expected = ("enabled", "components")
    for name in _block(spec, "cni"):
        if name not in expected:
            yield Problem(f"spec.cni.{name}", no_such_value(name, expected))
    if not isinstance(spec.get(PLATFORM, ""), str):
        yield Problem(f"spec.{PLATFORM}", f"saw {spec[PLATFORM]!r:.80}, expected a string")


def _misplaced(spec: Mapping[str, Any]) -> Iterator[str]:
    """Find likely typos of our names at the top of a spec; other names belong to other parts of the control plane."""
    meant = {name: name for name in OF_THE_SPEC} | {
        name: f"values.cni.{name}" for name in resource_values() if name not in OF_THE_SPEC
    }
    for name in spec:
        near = difflib.get_close_matches(name, meant, 1, TYPO)
        if near and name not in OF_THE_SPEC:
            yield f"spec.{name} has no effect: is spec.{meant[near[0]]} meant?"
    for name in _block(spec, "values"):
        if name in resource_values():
            yield f"spec.values.{name} has no effect: is spec.values.cni.{name} meant?"


def _unread(components: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"spec.cni.components.{name} has no effect: not of this agent" for name in components if name != "cni")
    for name in _block(components, "cni"):
        if name != "namespace":
            yield f"spec.cni.components.cni.{name} has no effect: only the namespace of a component is read"
