"""Which files are made from the declarations and from the code, and where in them: what others have written there stays."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from installer.config.values import chart_values
from tests.generate import chart, definition, istio, tables

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "istio-cni"
DOCS = ROOT / "docs" / "configuration.md"
EXAMPLE = ROOT / "docs" / "examples" / "web.yaml"


def generate() -> dict[Path, str]:
    """Make the files.

    Returns:
        Their texts, by their paths.
    """
    made: dict[Path, Callable[[str], str]] = {
        CHART / "values.schema.json": _schema,
        CHART / "istio-values.yaml": lambda text: _below("# generated\n", text, istio.table()),
        CHART / "values.yaml": lambda text: _below("cni:\n", text, chart.values()),
        CHART / "platforms" / "default.yaml": lambda text: _below("cni:\n", text, chart.of_every_platform()),
        CHART / "templates" / "daemonset.yaml": lambda text: _between(
            "{{- /* generated */}}", text, chart.environment()
        ),
        CHART / "crds" / "istiocontrolplane.yaml": _definition,
        DOCS: _tables,
        ROOT / "docs" / "operations.md": lambda text: _between("<!-- generated: reach -->", text, tables.reach()),
        ROOT / "docs" / "istio.md": lambda text: _between("<!-- generated: istio -->", text, istio.rows()),
        EXAMPLE.with_suffix(".svg"): _picture,
    }
    return {path: make(path.read_text()) for path, make in made.items()}


def schema_of_values() -> dict[str, Any]:
    """Return the schema of the chart's values under `cni`."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {key: chart.schema(each) for key, each in chart_values().items()},
    }


def _schema(text: str) -> str:
    schema = json.loads(text)
    own = {key: each for key, each in schema["properties"].items() if key in ("platform", "cni")}
    presets = sorted(each.stem for each in (CHART / "platforms").glob("*.yaml") if each.stem != "default")
    own["platform"]["enum"] = ["", *presets, "openshift"]  # the last is Istio's name
    schema["properties"] = own | {"cni": schema_of_values()}
    return chart.as_json(istio.with_istios(schema)) + "\n"


def _definition(text: str) -> str:
    text = _between("# generated: image", text, definition.image())
    return _between("# generated: cni", text, definition.values())


def _tables(text: str) -> str:
    text = _between("<!-- generated: values -->", text, tables.values())
    return _between("<!-- generated: settings -->", text, tables.settings())


def _picture(_: str) -> str:
    """Draw the example's pod as `install-cni explain` does."""
    command = [sys.executable, "-m", "installer", "explain", f"--file={EXAMPLE}", "--output=svg", "--pod-ip=10.244.1.7"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout


def _below(line: str, text: str, made: str) -> str:
    """Replace all that stands below a line."""
    before, found, _ = text.partition(f"\n{line}")
    assert found, f"saw no line {line!r}"
    return f"{before}\n{line}{made}"


def _between(mark: str, text: str, made: str) -> str:
    """Replace the lines between a line that holds a mark, and one that holds it with `end`."""
    end = mark.replace("generated", "end of generated")
    pattern = rf"(^[^\n]*{re.escape(mark)}\n).*?(^[^\n]*{re.escape(end)}\n)"
    replaced, times = re.subn(pattern, lambda match: match[1] + made + match[2], text, flags=re.DOTALL | re.MULTILINE)
    assert times == 1, f"saw {times} times {mark}, expected it once, and {end} after it"
    return replaced
