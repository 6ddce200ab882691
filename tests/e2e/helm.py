"""helm on the first node, as the admin runs it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.machine import ENVIRONMENT, checked

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.node import KubernetesNode

SLOWEST = 240.0  # seconds that helm may take


@dataclass(frozen=True)
class Helm:
    """One release of helm, for the objects of one namespace.

    Attributes:
        program: the file.
        node: where it runs.
        home: a folder for what it keeps for itself.
        namespace: of what it installs.
    """

    program: Path
    node: KubernetesNode
    home: Path
    namespace: str

    def __call__(self, *arguments: str, values: dict[str, Any] | None = None) -> str:
        """Run it, with values for `--values=-`, and return its stdout; it must succeed.

        It does not compare objects with the API server's schemas, as in the chart's tests (`tests.chart.helm`).
        """
        own = [f"--kubeconfig={self.node.kubeconfig}", f"--namespace={self.namespace}"]
        if arguments[0] in ("install", "upgrade"):
            own.append("--disable-openapi-validation")
        ended = subprocess.run(
            [*self.node.enter, str(self.program), *arguments, *own],
            env=ENVIRONMENT | {"HOME": str(self.home)},
            input=json.dumps(values or {}),
            capture_output=True,
            text=True,
            timeout=SLOWEST,
            check=False,
        )
        return checked(ended).stdout
