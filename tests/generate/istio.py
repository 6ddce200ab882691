"""What the chart and the docs have of the values of Istio's chart: their schema, and what each becomes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from installer.config.istio_values import BY_LEVEL, BY_REPAIR, DEFAULTS, ISTIO_VALUES, IstioValue
from installer.config.values import chart_values

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHARED = "global"  # the values of all of Istio's charts


def with_istios(made: Mapping[str, Any]) -> dict[str, Any]:
    """Add the values of Istio's chart to a schema of our values: at the top, below `cni` and in its block of defaults."""
    theirs = _properties()
    top, cni = dict(made["properties"]), dict(made["properties"]["cni"])
    refs = {key: {"$ref": f"#/definitions/istio/properties/{key}"} for key in theirs}
    own = cni["properties"]
    cni["properties"] = own | {key: ref for key, ref in refs.items() if key not in (*own, _SHARED)}
    top |= refs | {DEFAULTS: {"$ref": "#/definitions/istio"}, "cni": cni}
    definition = {"description": "The values of Istio's chart.", "type": "object", "properties": theirs}
    return {**made, "properties": top, "definitions": {"istio": definition}}


def table() -> str:
    """Write the table that the chart's templates read."""
    return "".join(f"- {json.dumps(_entry(each), ensure_ascii=False)}\n" for each in ISTIO_VALUES)


def rows() -> str:
    """Write the table of the documentation."""
    lines = ["| Istio's chart | here |", "|---|---|", *(f"| `{each.path}` | {_said(each)} |" for each in ISTIO_VALUES)]
    return "".join(f"{line}\n" for line in lines)


def _entry(value: IstioValue) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": value.path, "to": value.to, "by": value.by, "doc": value.doc}
    entry |= {"pairs": value.pairs, "refused": value.refused, "expected": value.expected}
    entry = {key: each for key, each in entry.items() if each} | {"ours": value.keys[0] in chart_values()}
    ours = chart_values().get(value.to)
    return entry | ({"default": ours.default} if ours and not ours.by_platform else {})


def _properties() -> dict[str, Any]:
    made: dict[str, Any] = {}
    for each in ISTIO_VALUES:
        *groups, last = each.keys
        inside = made
        for key in groups:
            group = inside.setdefault(
                key, {"description": "Of Istio's chart.", "type": ["object", "null"], "properties": {}}
            )
            if key != _SHARED:
                group["additionalProperties"] = False
            inside = group["properties"]
        inside[last] = _leaf(each)
    return made


def _leaf(value: IstioValue) -> dict[str, Any]:
    said = {"description": f"Of Istio's chart. {_said(value).replace('`', '')}"}
    if value.by == BY_REPAIR:
        return said | {"type": ["boolean", "null"]}
    if value.by == BY_LEVEL:
        return said | {"type": ["string", "null"]}
    if not value.to or value.pairs:
        return said
    return said | {"anyOf": [{"$ref": f"#/properties/cni/properties/{value.to}"}, {"enum": ["", None]}]}


def _said(value: IstioValue) -> str:
    if value.by == BY_REPAIR:
        return (
            "`cni.repairMode`: `redirect` for `repairPods`, `delete` for `deletePods`, `none`; `labelPods` is refused"
        )
    if value.by == BY_LEVEL:
        return f"`cni.logLevel`: {value.doc}"
    target = value.to if value.to == "platform" else f"cni.{value.to}"
    if value.pairs:
        pairs = [
            f"`{_flow(ours)}` for `{_flow(theirs)}`"
            for theirs, ours in value.pairs
            if ours is not None and ours != theirs
        ]
        return f"`{target}`" + (f": {', '.join(pairs)}" if pairs else "")
    if value.to:
        return f"`{target}`"
    if value.expected:
        return f"refused unless {' or '.join(f'`{_flow(each)}`' for each in value.expected)}: {value.doc}"
    if value.refused:
        return f"`{', '.join(map(_flow, value.refused))}` is refused: {value.doc}"
    return f"no effect: {value.doc}"


def _flow(value: object) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)
