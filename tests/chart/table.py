"""The README's table of values, made from values.schema.json: `python -m tests.chart.table` writes it anew."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.chart.helm import CHART

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

README = CHART / "README.md"
START, END = "<!-- values -->\n", "<!-- /values -->\n"


def schema() -> dict[str, Any]:
    """Read the chart's schema."""
    read: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return read


def table() -> str:
    """Write the values as a table (Markdown)."""
    top = dict(schema()["properties"])
    of_cni = top.pop("cni")["properties"]
    rows = ["| value | allowed | default | meaning |", "|---|---|---|---|"]
    rows += _rows("", {name: each for name, each in top.items() if "default" in each})
    rows += _rows("cni.", of_cni)
    return "\n".join(rows) + "\n"


def renewed(readme: str) -> str:
    """Put the table into the README's text, in place of the one that is there."""
    before, _, rest = readme.partition(START)
    _, _, after = rest.partition(END)
    return before + START + table() + END + after


def _rows(prefix: str, properties: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, each in properties.items():
        default = json.dumps(each["default"]) if each["default"] != "" else ""
        shown = f"`{default}`" if default else "empty"
        yield f"| `{prefix}{name}` | {_allowed(each)} | {shown} | {each['description']} |"


def _allowed(of: Mapping[str, Any]) -> str:
    if "enum" in of:
        return ", ".join(f"`{each}`" for each in of["enum"] if each)
    kinds = [of["type"]] if isinstance(of["type"], str) else of["type"]
    if kinds == ["array"]:
        return f"list of {of['items']['type']}s"
    if kinds == ["object"] and "properties" in of:
        return "object of " + ", ".join(f"`{name}`" for name in of["properties"])
    if kinds == ["object"]:
        return f"object of {of['additionalProperties']['type']}s"
    return " or ".join(kinds)


if __name__ == "__main__":
    README.write_text(renewed(README.read_text()))
