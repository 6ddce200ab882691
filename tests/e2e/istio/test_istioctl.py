"""What people do with istioctl beside our agent: inject by hand, and gather a bug report."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e import workloads
from tests.e2e.istio.mesh import PLAIN, SYSTEM
from tests.e2e.release import AGENT
from tests.e2e.shop import ENVOY

if TYPE_CHECKING:
    from tests.e2e.istio.mesh import Mesh

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

# What `kube-inject` can be given in files: option, ConfigMap and key.
FILES = {
    "--injectConfigFile": ("istio-sidecar-injector", "config"),
    "--valuesFile": ("istio-sidecar-injector", "values"),
    "--meshConfigFile": ("istio", "mesh"),
}


@pytest.mark.parametrize("given", ["configmap", "files"])
def test_a_pod_that_was_injected_by_hand_is_in_the_mesh(mesh: Mesh, server: str, given: str, tmp_path: Path) -> None:
    options = _files(mesh, tmp_path) if given == "files" else ["--injectConfigMapName=istio-sidecar-injector"]
    manifest = tmp_path / "manifest.yaml"
    made = [workloads.deployment("byhand", PLAIN, injected=False), workloads.service("byhand", PLAIN)]
    manifest.write_text("\n---\n".join(map(json.dumps, made)))
    mesh.node.kubectl("apply", "--filename=-", stdin=mesh.istioctl("kube-inject", *options, f"--filename={manifest}"))
    pod = mesh.ready("byhand", where=PLAIN)
    containers = (*pod["spec"]["containers"], *pod["spec"]["initContainers"])  # classic, or native
    assert "istio-proxy" in [each["name"] for each in containers]
    assert mesh.ask("byhand", server, where=PLAIN) == f"server {ENVOY}"
    assert mesh.ask("server", mesh.service("byhand", PLAIN)) == f"byhand {ENVOY}"
    mesh.stop("byhand", where=PLAIN)


@pytest.mark.parametrize("span", [[], ["--duration=1h"]], ids=["all", "last-hour"])
def test_a_bug_report_has_the_logs_of_each_agent(mesh: Mesh, server: str, span: list[str], tmp_path: Path) -> None:
    mesh.istioctl("bug-report", *span, f"--output-dir={tmp_path}", f"--dir={tmp_path / 'gathered'}")
    agents = {pod["metadata"]["name"] for pod in mesh.node.read("pods", SYSTEM, **AGENT)["items"]}
    assert len(agents) == len(mesh.cluster.nodes)
    with tarfile.open(tmp_path / "bug-report.tar.gz") as archive:
        logs = {Path(name).parent.name: archive.extractfile(name) for name in archive.getnames() if "cni.log" in name}
        texts = {agent: log.read().decode() for agent, log in logs.items() if log}
    assert texts.keys() == agents
    assert all(texts.values())
    assert any(mesh.pod("server")["metadata"]["name"] in text for text in texts.values()), "its redirect is told"


def _files(mesh: Mesh, folder: Path) -> list[str]:
    """Write what istiod injects with into files, and return the options that name them."""
    options = []
    for option, (name, key) in FILES.items():
        file = folder / key
        told = ("get", f"configmap/{name}", f"--namespace={SYSTEM}", f"--output=jsonpath={{.data.{key}}}")
        file.write_text(mesh.node.kubectl(*told))
        options.append(f"{option}={file}")
    return options
