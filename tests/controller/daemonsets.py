"""The real DaemonSet controller and scheduler, at a test's API server."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.programs.lots import KUBE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.controller.stage import Stage

PARTS = {
    "kube-controller-manager": ["--controllers=daemonset-controller"],
    "kube-scheduler": [],
}


@contextmanager
def daemonset_controller(stage: Stage) -> Iterator[None]:
    """Run what makes pods of a DaemonSet and puts them onto nodes."""
    common = [f"--kubeconfig={stage.cluster.folder / 'admin.kubeconfig'}", "--leader-elect=false", "--secure-port=0"]
    running = []
    try:
        for name, own in PARTS.items():
            with (stage.folder / f"{name}.log").open("w") as log:
                command = ["/usr/bin/setpriv", "--pdeathsig=KILL", str(KUBE.folder / name), *common, *own]
                running.append(subprocess.Popen(command, stdout=log, stderr=log))
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()
