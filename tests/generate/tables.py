"""The tables of the documentation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from installer.config.declaration import Setting, Value
from installer.config.settings import declarations
from installer.config.values import chart_values, resource_values
from tests.generate.chart import schema

if TYPE_CHECKING:
    from collections.abc import Iterator


_REACH = {  # by the word in the table of values
    "live": "in force on every node within seconds, without a restart",
    "new pods": "the controller replaces the agents, as many at a time as `cni.maxUnavailable` says (25 % unless the chart "
    "says otherwise); `helm upgrade` leaves that as it is",
    "controller": "the controller binds the agents' account to this ClusterRole, without a restart",
}


def values() -> str:
    """Write the table of the chart's values, each with where else it may be set."""
    rows = ["| value | allowed | default | IstioControlPlane | meaning |", "|---|---|---|---|---|"]
    for each in chart_values().values():
        rows += _rows("cni.", each, _in_resource(each))
    return "".join(f"{row}\n" for row in rows)


def settings() -> str:
    """Write the table of the agent's flags and environment variables."""
    rows = ["| flag | environment | value of the chart | default | meaning |", "|---|---|---|---|---|"]
    for each in declarations():
        default = each.shown_default or (f"`{each.default_text}`" if each.default_text else "empty")
        value = f"`cni.{each.key}`" if each.in_chart else ""
        rows.append(f"| `{each.flag} {each.metavar}` | `{each.variable}` | {value} | {default} | {each.doc} |")
    return "".join(f"{row}\n" for row in rows)


def reach() -> str:
    """Write the table of an IstioControlPlane's values by how each reaches the nodes."""
    rows = ["| setting | how it reaches the nodes |", "|---|---|"]
    for word, how in _REACH.items():
        keys = [key for key, each in resource_values().items() if _in_resource(each) == word]
        listed = [*keys, *(["enabled"] if word == "live" else [])]
        rows.append(f"| {', '.join(f'`{key}`' for key in listed)} | {how} |")
    return "".join(f"{row}\n" for row in rows)


def _rows(prefix: str, value: Value, in_resource: str) -> Iterator[str]:
    name = prefix + value.key
    if value.values:
        yield f"| `{name}` | | | {in_resource} | {value.doc} |"
        for each in value.values:
            yield from _rows(f"{name}.", each, in_resource)
        return
    default = f"`{json.dumps(value.default)}`" if value.default != "" else "empty"
    yield f"| `{name}` | {_allowed(value)} | {default} | {in_resource} | {value.doc} |"


def _in_resource(value: Value) -> str:
    """Say what a change in the resource does; empty: the resource has no such value."""
    if not value.in_resource:
        return ""
    if isinstance(value, Setting) and value.live:
        return "live"
    return "controller" if value.key == "psp_cluster_role" else "new pods"


def _allowed(value: Value) -> str:
    of = schema(value)
    if "enum" in of:
        return ", ".join(f"`{each}`" for each in of["enum"])
    kinds = [of["type"]] if isinstance(of["type"], str) else of["type"]
    if kinds == ["array"]:
        return f"list of {of['items']['type']}s"
    if kinds == ["object"] and "properties" in of:
        return "object of " + ", ".join(f"`{name}`" for name in of["properties"])
    if kinds == ["object"] and "additionalProperties" in of:
        return f"object of {of['additionalProperties']['type']}s"
    return " or ".join(kinds)
