"""Runs helm, which renders the chart and parses `--set`, so that both have helm's semantics.

All raise ProgramError: if the chart is not there, or with what helm says is wrong.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from installer.manifest.overlay import deep_merge
from installer.manifest.programs import ProgramError, checked, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RELEASE = "istio-cni"
_SCHEMA = "values.schema.json"
_MARK = "values: "
PLACES = (  # the chart: beside this module in an installed package, else in the source tree
    Path(__file__).parent / "chart",
    Path(__file__).parents[2] / "charts" / "istio-cni",
)


def find_chart(given: Path | None) -> Path:
    """Find the chart's folder."""
    for place in [given] if given else PLACES:
        if (place / _SCHEMA).is_file():
            return place.absolute()
    if given:
        raise ProgramError(f"--chart {given}: saw no {_SCHEMA} there, expected the folder of the chart istio-cni")
    raise ProgramError("the chart istio-cni is not installed with this command; name its folder: --chart DIR")


def value_names(folder: Path) -> frozenset[str]:
    """Return the names under `cni` in a chart's schema."""
    try:
        return frozenset(json.loads((folder / _SCHEMA).read_bytes())["properties"]["cni"]["properties"])
    except (ValueError, TypeError, KeyError) as error:
        raise ProgramError(
            f"{folder / _SCHEMA}: saw no properties of cni, expected those of the chart istio-cni"
        ) from error


def render(
    program: Path, folder: Path, namespace: str, values: Mapping[str, Any], kube_version: str | None = None
) -> str:
    """Render a chart, its custom resource definitions first.

    Without `kube_version` it is rendered for helm's default.
    """
    options = [f"--namespace={namespace}", "--include-crds", "--no-hooks", "--skip-tests", "--values=-"]
    options += [f"--kube-version={kube_version}"] if kube_version else []
    return checked(run(program, ["template", RELEASE, str(folder), *options], json.dumps(values)))


def with_set(
    program: Path, values: Mapping[str, Any], sets: Sequence[str], set_strings: Sequence[str]
) -> dict[str, Any]:
    """Merge the values of `--set` and `--set-string` into others; helm parses them and writes JSON."""
    given = [*(f"--set={each}" for each in sets), *(f"--set-string={each}" for each in set_strings)]
    with tempfile.TemporaryDirectory(prefix="install-cni-") as path:
        folder = Path(path)
        (folder / "templates").mkdir()
        (folder / "Chart.yaml").write_text("{apiVersion: v2, name: values, version: 0.0.0}\n")
        (folder / "templates" / "values.yaml").write_text(_MARK + "{{ .Values | toJson }}\n")
        output = checked(run(program, ["template", RELEASE, path, "--values=-", *given], json.dumps(values)))
    try:
        merged = json.loads(output.partition(_MARK)[2])
    except ValueError as error:
        raise ProgramError(f"helm: saw {output!r:.200}, expected values as JSON") from error
    return deep_merge({}, merged)
