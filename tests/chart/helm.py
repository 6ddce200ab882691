"""helm, and what the chart's templates make of values."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.programs.lots import KUBE
from tests.support import golang

if TYPE_CHECKING:
    from collections.abc import Mapping

CHART = Path(__file__).parents[2] / "charts" / "istio-cni"
PLATFORMS = sorted(path.stem for path in (CHART / "platforms").glob("*.yaml") if path.stem != "default")
BESIDES = ("istio-cni-node-repair", "istio-cni-node-events")  # of a kind of which the agent has another
SLOWEST = 60.0  # seconds that helm may take


def helm(
    *arguments: str, values: Mapping[str, Any] | None = None, home: Path, compares: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run helm.

    Args:
        arguments: its command line.
        values: what it is given as `--values`.
        home: a folder for what it keeps for itself.
        compares: whether it compares all objects with the API server's schemas before it sends them, as it does for
            users; that takes a second, and the API server refuses wrong objects anyway.
    """
    given = None if values is None else yaml.safe_dump(values)
    if arguments[0] in ("install", "upgrade") and not compares:
        arguments += ("--disable-openapi-validation",)
    if arguments[0] == "template" and str(CHART) in arguments:
        return _rendered(arguments, given)
    return _run(arguments, given, str(home))


@cache
def _rendered(arguments: tuple[str, ...], values: str | None) -> subprocess.CompletedProcess[str]:
    """Render the chart: the same of the same values, so once for all tests."""
    return _run(arguments, values, "/nowhere")


def _run(arguments: tuple[str, ...], values: str | None, home: str) -> subprocess.CompletedProcess[str]:
    program = KUBE.folder / "helm"
    assert program.is_file(), (
        f"no helm in {KUBE.folder}; `make kube` builds it, or $KUBE_BIN_DIR names a folder that has it"
    )
    given = ["--values=-"] if values is not None else []
    environment = {"HOME": home, "PATH": "/usr/bin:/bin"} | golang.COMMAND
    return subprocess.run(
        [str(program), *arguments, *given],
        input=values,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SLOWEST,
        check=False,
    )


def read_schema() -> dict[str, Any]:
    """Read the schema of the chart's values."""
    read: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return read


class Rendered:
    """The objects that the templates make, by kind."""

    def __init__(self, text: str) -> None:
        """Parse what `helm template` has written."""
        self.text = text
        made: list[dict[str, Any]] = [
            each for each in yaml.load_all(text, yaml.CSafeLoader) if each
        ]  # 15 times as fast
        self.objects = [each for each in made if not _is_hook(each)]
        self.hooks = [each for each in made if _is_hook(each)]

    def __getitem__(self, kind: str) -> dict[str, Any]:
        """The object of a kind; where the controller has one too, the node agent's."""
        found = [each for each in self.objects if each["kind"] == kind and each["metadata"]["name"] not in BESIDES]
        (only,) = [each for each in found if not each["metadata"]["name"].startswith("istio-cni-controller")] or found
        return only

    def of_controller(self, kind: str) -> dict[str, Any]:
        """The object of a kind that is the controller's."""
        (only,) = [
            each for each in self.objects if (each["kind"], each["metadata"]["name"]) == (kind, "istio-cni-controller")
        ]
        return only

    @property
    def controller(self) -> dict[str, Any]:
        """The spec of the controller's pod."""
        spec: dict[str, Any] = self.of_controller("Deployment")["spec"]["template"]["spec"]
        return spec

    @property
    def kinds(self) -> list[str]:
        """The kinds, sorted."""
        return sorted(each["kind"] for each in self.objects)

    @property
    def pod(self) -> dict[str, Any]:
        """The pod's spec."""
        spec: dict[str, Any] = self["DaemonSet"]["spec"]["template"]["spec"]
        return spec

    @property
    def container(self) -> dict[str, Any]:
        """The pod's one container."""
        (only,) = self.pod["containers"]
        found: dict[str, Any] = only
        return found

    @property
    def settings(self) -> dict[str, str]:
        """The agent's settings, by environment variable."""
        return {each["name"]: each["value"] for each in self.container["env"] if "value" in each}


def _is_hook(made: Mapping[str, Any]) -> bool:
    return "helm.sh/hook" in (made["metadata"].get("annotations") or {})
