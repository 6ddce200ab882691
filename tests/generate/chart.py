"""What the chart has of a declaration: its schema, its values with their defaults, and the agents' environment."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any

from installer.config.settings import declarations
from installer.config.values import chart_values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from installer.config.declaration import Setting, Value

WIDTH = 120  # columns


def bare(schema: Any) -> Any:
    """Take the descriptions out of a schema: they are for errors."""
    if isinstance(schema, dict):
        return {key: bare(value) for key, value in schema.items() if key != "description" or isinstance(value, dict)}
    return schema


def schema(value: Value) -> dict[str, Any]:
    """Make the schema of a value of the chart."""
    made = bare(value.kind.schema) | dict(value.chart)
    if value.values:
        made["properties"] = {each.key: schema(each) for each in value.values}
    return {"description": value.doc, **made, "default": value.default}


def as_json(value: Any, indent: str = "") -> str:
    """Write JSON: on one line what fits there."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or (len(indent + line) < WIDTH and "description" not in line):
        return line
    deeper = indent + "  "
    if isinstance(value, list):
        return "[\n" + ",\n".join(deeper + as_json(each, deeper) for each in value) + f"\n{indent}]"
    items = (f"{deeper}{json.dumps(key)}: {as_json(each, deeper)}" for key, each in value.items())
    return "{\n" + ",\n".join(items) + f"\n{indent}}}"


def values() -> str:
    """Write the values of values.yaml below `cni`: those that depend on the platform as comments."""
    return "\n".join("".join(_value(each, "  ")) for each in chart_values().values())


def of_every_platform() -> str:
    """Write the values that depend on the platform, with their defaults."""
    return "".join(f"  {each.key}: {_flow(each.default)}\n" for each in chart_values().values() if each.by_platform)


def environment() -> str:
    """Write the agents' environment, each setting under the name of its variable."""
    return "".join(
        f"        - name: {each.variable}\n          value: {{{{ {_text(each)} | quote }}}}\n"
        for each in declarations()
        if each.in_environment
    )


def _text(setting: Setting) -> str:
    given = f"$cni.{setting.key}"
    return f'join "," {given}' if isinstance(setting.default, list) else given


def _value(value: Value, indent: str) -> Iterator[str]:
    yield "".join(
        f"{indent}# {line}\n" for line in textwrap.wrap(value.doc, WIDTH - len(indent) - 2, break_on_hyphens=False)
    )
    if value.by_platform:
        yield f"{indent}# {value.key}: {_flow(value.default)}\n"
    elif value.values:
        yield f"{indent}{value.key}:\n"
        for each in value.values:
            yield from _value(each, f"{indent}  ")
    else:
        yield f"{indent}{value.key}: {_flow(value.default)}\n"


def _flow(value: object) -> str:
    """Write YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return value if isinstance(value, str) and value and not value.startswith("*") else json.dumps(value)
