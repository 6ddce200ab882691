"""The commands of the page "With a current Istio": which test runs each, and a shell for whoever follows the page."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.docs.pages import DOCS, ROOT, sections
from tests.image.build import HUB
from tests.programs.lots import ISTIO, KUBE
from tests.support.machine import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PAGE = DOCS / "istio.md"
SLOWEST = 300.0  # seconds that a command may take

# Which test runs which blocks of commands, each from the first line to the last: a block by its section and how one of its
# commands begins, and the number of its commands.
RUN_BY = {
    "tests/e2e/istio/test_from_istio_init.py": {
        ("Set up", "helm upgrade istiod"): 1,
        ("From istio-init", "helm install istio-cni"): 6,
        ("Back again", "helm upgrade istiod"): 3,
    },
    "tests/e2e/istio/test_takeover.py": {
        ("Set up", "istioctl install"): 1,
        ("From Istio's own CNI", "helm upgrade istio-cni"): 3,
        ("From Istio's own CNI", "install-cni takeover"): 2,
        ("From Istio's own CNI", "istioctl install"): 5,
        ("Back again", "helm rollback"): 1,
        ("Back again", "istioctl install"): 2,
        ("Istio's own chart with this image", "helm upgrade"): 1,
        ("Istio's own chart with this image", "istioctl install"): 1,
    },
    "tests/chart/test_other_installers.py": {
        ("Set up", "kubectl patch istio default"): 1,
        ("From Istio's own CNI", "kubectl delete istiocni"): 5,
        ("Back again", "kubectl apply"): 2,
        ("Istio's own chart with this image", "kubectl patch istiocni"): 1,
    },
}

# What differs here: the image has another name, and comes from no registry.
REPLACED = {
    "--set cni.hub=REGISTRY/PATH": "--set cni.hub=registry.example.org/mesh",  # as `takeover` prints it
    "--set cni.hub=registry.example.org/mesh": f"--set cni.hub={HUB} --set cni.pullPolicy=Never",
    "registry.example.org/mesh": HUB,
}
# What the page calls the charts; a folder of that name is there.
CHARTS = {
    "charts": ROOT / "charts",
    "istio/istiod": ISTIO.folder / "charts" / "istio-control" / "istio-discovery",
    "istio/cni": ISTIO.folder / "charts" / "istio-cni",
}
_PROGRAMS = (
    KUBE.folder / "helm",
    KUBE.folder / "kubectl",
    ISTIO.folder / "istioctl",
    Path(sys.executable).with_name("install-cni"),
)


def all_commands() -> list[tuple[str, list[str]]]:
    """Return each block of commands on the page: its section, and its commands without comments, each on one line."""
    found = []
    for section, blocks in sections(PAGE):
        for block in blocks:
            if block.language == "sh":
                lines = "\n".join(block.lines).replace("\\\n", " ").splitlines()
                found.append((section, [" ".join(line.split()) for each in lines if (line := _without_comment(each))]))
    return found


def commands(section: str, beginning: str) -> list[str]:
    """Return the one block of commands in a section that has a command with this beginning."""
    (found,) = [
        block
        for where, block in all_commands()
        if where == section and any(each.startswith(beginning) for each in block)
    ]
    return found


def without_settings(command: str) -> str:
    """Return a command without the settings that are carried over, and with the page's name of the registry."""
    words = shlex.split(command)
    carried = {at for at, word in enumerate(words) if word == "--set-json"}
    kept = [word for at, word in enumerate(words) if at not in carried and at - 1 not in carried]
    return shlex.join(kept).replace("REGISTRY/PATH", "registry.example.org/mesh")


class Shell:
    """A shell of whoever follows the page, with its programs and charts.

    Attributes:
        folder: where it is; the files that the page names are there.
    """

    def __init__(
        self, folder: Path, kubeconfig: Path, *, enter: Sequence[str] = (), replaced: Mapping[str, str] | None = None
    ) -> None:
        """Prepare.

        Args:
            folder: for what the programs keep for themselves.
            kubeconfig: the admin's.
            enter: what to put before a command so that it runs elsewhere.
            replaced: what differs besides `REPLACED`.
        """
        self.folder = folder
        self._enter, self._replaced = enter, REPLACED | dict(replaced or {})
        programs = folder / "programs"
        programs.mkdir()
        for program in _PROGRAMS:
            (programs / program.name).symlink_to(program)
        for name, chart in CHARTS.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).symlink_to(chart)
        path = f"{programs}:{ENVIRONMENT['PATH']}"
        self._environment = ENVIRONMENT | {"PATH": path, "HOME": str(folder), "KUBECONFIG": str(kubeconfig)}

    def __call__(self, command: str) -> str:
        """Run a command, answer its question with yes, and return its stdout; it must succeed."""
        for there, here in self._replaced.items():
            command = command.replace(there, here)
        ended = subprocess.run(
            [*self._enter, "/bin/bash", "-euo", "pipefail", "-c", f"cd {shlex.quote(str(self.folder))}; {command}"],
            env=self._environment, input="y\n", capture_output=True, text=True, timeout=SLOWEST, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, f"{command}: status {ended.returncode}: {ended.stderr}{ended.stdout}"
        return ended.stdout


def _without_comment(line: str) -> str:
    """Return a command's line without its comment, if it has one."""
    return line.partition("# ")[0].strip()
