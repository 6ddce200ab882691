"""The values of `values.cni` in chart and custom resource: which there are, of what type, and what each sets. Pure.

Those that set the agent come from its declared settings; the others are what the DaemonSet is made of. The names are
those of the chart of 2019, and ours in the same manner.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, NamedTuple

from jsonschema import Draft202012Validator

from installer.config.settings import declarations

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from jsonschema.exceptions import ValidationError

    from installer.config.settings import Declaration

OF_ONE_AGENT = (
    "node_name",
    "plugin_file",
    "pods_from",
    "kubeconfig",
    "pod_uid",
)  # what a cluster has no common value for
OF_TEMPLATES = ("mounts", "daemonset", "netns_dir", "cni_cache_dir")  # what the chart's templates set by themselves
OF_THE_CHART = (  # values of the chart alone
    "affinity", "agentSocket", "controller", "healthAddress", "imagePullSecrets", "maxUnavailable", "mountPropagation",
    "multus", "namespace", "networkPolicy", "nodeSelector", "podMonitor", "preDeleteHook",
    "resourceQuota", "seLinuxOptions", "taint", "tolerations",
)  # fmt: skip
# The patterns end in \Z, as $ lets a line end follow; a `description` says what is expected.
_QUANTITY = {
    "type": ["string", "number"],
    "pattern": r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+|[KMGTPE]i|[numkMGTPE])?\Z",
    "description": "a quantity, such as 100m or 128Mi",
}
_QUANTITIES = {"type": "object", "additionalProperties": _QUANTITY}
OF_THE_DAEMONSET: Mapping[str, Mapping[str, Any]] = {
    "hub": {
        "type": "string",
        "pattern": r"^(([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[a-z0-9._-]+)*/?)?\Z",
        "description": "a registry, and a path in it, without tag and digest, such as registry.example.org:5000/mesh",
    },
    "tag": {
        "type": ["string", "integer"],
        "pattern": r"^([A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?\Z",
        "minimum": 0,
        "description": "a tag, @sha256: and 64 lowercase hexadecimal digits, or both, such as 0.1.0 or 0.1.0@sha256:…",
    },
    "pullPolicy": {"type": "string", "enum": ["Always", "IfNotPresent", "Never"]},
    "psp_cluster_role": {"type": "string"},
    "podAnnotations": {"type": "object", "additionalProperties": {"type": "string"}},
    "resources": {
        "type": "object",
        "properties": {
            "requests": _QUANTITIES,
            "limits": _QUANTITIES,
            "claims": {"type": "array", "items": {"type": "object", "required": ["name"]}},
        },
        "additionalProperties": False,
    },
}


class Problem(NamedTuple):
    """What is wrong with a value: where, and what was seen and expected."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def of_agents() -> dict[str, Declaration]:
    """Return the values that set the node agents, by the names that users give them."""
    others = (*OF_ONE_AGENT, *OF_TEMPLATES)
    return {each.key: each for each in declarations() if each.name not in others and each.key not in OF_THE_CHART}


def schemas() -> dict[str, Mapping[str, Any]]:
    """Return the JSON schema of each value of the resource."""
    return {key: each.schema for key, each in of_agents().items()} | dict(OF_THE_DAEMONSET)


def names() -> frozenset[str]:
    """Return the names that the chart has under `cni`: those of the resource, and its own."""
    return frozenset((*schemas(), *OF_THE_CHART))


def problems(path: str, given: Mapping[str, Any], *, known_alone: bool, types_alone: bool) -> Iterator[Problem]:
    """Find what is wrong with values.

    Args:
        path: of the block that holds them.
        given: the block, as parsed.
        known_alone: whether a name that no value has is wrong; the nearest one is named.
        types_alone: whether only types are checked, not what is allowed besides.
    """
    known = schemas()
    for name, value in given.items():
        if name not in known:
            if known_alone:
                yield Problem(f"{path}.{name}", _unknown(name, known))
            continue
        schema = _type_of(known[name]) if types_alone else known[name]
        found: dict[str, Problem] = {}  # the first at each place: of a wrong type the allowed values say nothing new
        for error in Draft202012Validator(schema).iter_errors(value):
            place = ".".join([path, name, *map(str, error.absolute_path)])
            for each in _problems_of(error, place):
                found.setdefault(each.path, each)
        yield from found.values()


def without_effect(unvalidated: Mapping[str, Any], known: Collection[str]) -> Iterator[str]:
    """Name the unvalidated values that nothing reads, each in a sentence: they are not wrong, but they do nothing.

    Args:
        unvalidated: the block `spec.unvalidatedValues.cni`, as parsed.
        known: the names that are read.
    """
    for name in unvalidated:
        if name not in known:
            yield f"spec.unvalidatedValues.cni.{name} has no effect: {_unknown(name, known)}"


def no_such_value(name: str, known: Collection[str]) -> str:
    """Say that a name is none of those that are known, and which of them is the nearest."""
    near = difflib.get_close_matches(name, known, 1)
    return "no such value; " + (f"is {near[0]} meant?" if near else f"expected one of {', '.join(sorted(known))}")


def _unknown(name: str, known: Collection[str]) -> str:
    if name in OF_THE_CHART:
        return f"it is set by the chart alone: helm upgrade --set cni.{name}=…"
    return no_such_value(name, known)


def as_text(value: object) -> str:
    """Write a value that sets the agents as its setting's text: lists with commas, booleans as JSON has them."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _type_of(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: rule for name, rule in schema.items() if name != "enum"}


def _problems_of(error: ValidationError, place: str) -> Iterator[Problem]:
    if (
        error.validator == "additionalProperties"
        and isinstance(error.instance, dict)
        and isinstance(error.schema, dict)
    ):
        allowed = error.schema["properties"]
        yield from (
            Problem(f"{place}.{key}", no_such_value(key, allowed)) for key in error.instance if key not in allowed
        )
    elif error.validator in ("pattern", "minimum") and isinstance(error.schema, dict):
        yield Problem(place, f"saw {error.instance!r:.80}, expected {error.schema['description']}")
    else:
        yield Problem(place, _said(error))


def _said(error: ValidationError) -> str:
    expected = error.schema.get("enum") or error.schema.get("type") if isinstance(error.schema, dict) else None
    allowed = ", ".join(map(str, expected)) if isinstance(expected, list) else str(expected)
    return f"saw {error.instance!r:.80}, expected {allowed if expected else error.message}"
