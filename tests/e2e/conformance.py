"""Kubernetes' own end-to-end suite (k8s.io/kubernetes/test/e2e) on a cluster, with images of our own."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e.istio.images import dns
from tests.programs.lots import CONFORMANCE, KUBE
from tests.support.busybox import image
from tests.support.images import Image, compiled, libraries, write
from tests.support.machine import ENVIRONMENT, checked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.node import TwoNodes

PROCESSES = os.environ.get("CONFORMANCE_PROCESSES", "4")  # at once; each takes 1.3 CPU s to know all specs
GRACE = 240  # seconds for it to clean up after that
ATTEMPTS = 2  # of a spec: some count seconds, and fail on a machine that is busy
_SUITE = CONFORMANCE.folder / "e2e.test"
_AGNHOST = ("agnhost", "localhost.crt", "localhost.key")
# What the specs run in pods: path in the image, and the file here.
_TOOLS = {
    "bin/bash": Path("/usr/bin/bash"),
    "usr/bin/curl": Path("/usr/bin/curl"),
    "usr/bin/dig": Path("/usr/bin/dig"),
    "usr/bin/getent": Path("/usr/bin/getent"),
    "bin/nc": Path("/usr/bin/nc.openbsd"),
    "bin/sh": Path("/usr/bin/dash"),  # busybox's would take its own `nc`, whatever is in PATH
}


def give_images(cluster: TwoNodes) -> None:
    """Give both nodes the images that network specs ask for, by the names in the suite's own list, and that of DNS."""
    command = [str(_SUITE), "--list-images"]
    listed = checked(subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False))
    names = listed.stdout.split()
    made = [dns(), *(make(name) for name in names if (make := _MAKERS.get(name.rpartition(":")[0].rpartition("/")[2])))]
    tar = write(cluster.first.folder / "conformance.tar", made)
    cluster.import_images(tar)
    tar.unlink()


def judge(cluster: TwoNodes, report: Path, focus: str, within: float) -> dict[str, str]:
    """Run specs on a cluster that has its images, from the first node.

    Args:
        cluster: with its network and its DNS ready.
        report: the file that Ginkgo's JSON is to be in; what the suite prints is beside it, in a `.log`.
        focus: a regular expression: which specs.
        within: seconds that the run may take; then it ends by itself, and says where it was.

    Returns:
        How each of these ended, by its full name: `passed`, `failed`, or `skipped` where it does not apply.
    """
    node = cluster.first
    command = [
        "/usr/bin/env",
        "HOME=/run",  # of kubectl's cache: the node's own
        str(CONFORMANCE.folder / "ginkgo"),
        f"--procs={PROCESSES}",
        f"--flake-attempts={ATTEMPTS}",
        f"--focus={focus}",
        f"--timeout={within:.0f}s",
        f"--output-dir={report.parent}",
        f"--json-report={report.name}",
        "--no-color",
        "-v",
        str(_SUITE),
        "--",
        f"--kubeconfig={node.kubeconfig}",
        f"--kubectl-path={KUBE.folder / 'kubectl'}",
        "--provider=skeleton",
        "--dump-logs-on-failure=false",
        "--disable-log-dump",
    ]
    node.run_to_end(command, report.with_suffix(".log"), within + GRACE)
    [suite] = json.loads(report.read_text())
    specs = [each for each in suite["SpecReports"] if each["LeafNodeType"] == "It" and each["NumAttempts"]]
    return {" ".join([*each["ContainerHierarchyTexts"], each["LeafNodeText"]]): each["State"] for each in specs}


def _agnhost(name: str) -> Image:
    made = _tools(name, {name: CONFORMANCE.folder / name for name in _AGNHOST})
    return replace(made, entrypoint=("/agnhost",), arguments=("pause",))


def _tools(name: str, files: Mapping[str, Path | bytes] | None = None) -> Image:
    needed = {inside: each for tool in _TOOLS.values() for inside, each in libraries(tool).items()}
    made = image(name, files={"etc/nsswitch.conf": b"hosts: files dns\n", **_TOOLS, **needed, **(files or {})})
    return replace(made, environment=("PATH=/usr/bin:/bin",))


def _pause(name: str) -> Image:
    return Image(name, {"pause": compiled("pause")}, ("/pause",))


_MAKERS = {"agnhost": _agnhost, "jessie-dnsutils": _tools, "busybox": image, "pause": _pause}
