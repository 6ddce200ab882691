"""The values of chart and IstioControlPlane, and their validation. Pure."""

from __future__ import annotations

import difflib
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.config.chart_values import CHART, IMAGE, PODS
from installer.config.settings import declarations

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from installer.config.declaration import Value


class Problem(NamedTuple):
    """A fault of a value: its path, and what was seen and expected."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


@cache
def chart_values() -> Mapping[str, Value]:
    """Return the values that the chart has under `cni`, in order, by their keys."""
    return {each.key: each for each in (*IMAGE, *declarations(), *PODS, *CHART) if each.in_chart}


@cache
def resource_values() -> Mapping[str, Value]:
    """Return the values that an IstioControlPlane has under `values.cni`, in order, by their keys."""
    return {key: each for key, each in chart_values().items() if each.in_resource}


def find_problems(path: str, given: Mapping[str, Any], *, known_alone: bool, types_alone: bool) -> Iterator[Problem]:
    """Validate values.

    `path` is that of their block. With `known_alone` an unknown name is a problem, which names the nearest known one; with
    `types_alone` values that are not listed are accepted.
    """
    known = resource_values()
    for name, value in given.items():
        if name in known:
            for flaw in known[name].kind.flaws(value, types_alone=types_alone):
                place = ".".join([path, name, *map(str, flaw.place)])
                if flaw.unknown:
                    yield Problem(f"{place}.{flaw.unknown}", no_such_value(flaw.unknown, flaw.known))
                else:
                    yield Problem(place, flaw.message)
        elif known_alone:
            yield Problem(f"{path}.{name}", _unknown(name, known))


def without_effect(unvalidated: Mapping[str, Any], known: Collection[str]) -> Iterator[str]:
    """Name the unvalidated values that nothing reads, each in a sentence: they are no error, but have no effect."""
    for name in unvalidated:
        if name not in known:
            yield f"spec.unvalidatedValues.cni.{name} has no effect: {_unknown(name, known)}"


def no_such_value(name: str, known: Collection[str]) -> str:
    """Return the message about an unknown name, with the nearest known one."""
    near = difflib.get_close_matches(name, known, 1)
    return "no such value; " + (f"is {near[0]} meant?" if near else f"expected one of {', '.join(sorted(known))}")


def _unknown(name: str, known: Collection[str]) -> str:
    if name in chart_values():
        return f"only the chart sets it: helm upgrade --set cni.{name}=…"
    return no_such_value(name, known)
