"""`install-cni manifest` with the real helm and kubectl, and one API server."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import yaml

from installer.config.control_plane import GROUP, KIND
from tests.chart.helm import Rendered
from tests.programs.lots import KUBE
from tests.support import golang
from tests.support.cluster import Cluster
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OF_THE_GUIDE = """
apiVersion: install.istio.io/v1alpha2
kind: IstioControlPlane
spec:
  cni:
    enabled: true
  values:
    cni:
      excludeNamespaces:
      - istio-system
      - kube-system
      - foo_ns
      - bar_ns
  unvalidatedValues:
    cni:
      logLevel: info
"""
SLOWEST = 90.0  # seconds for one command


class Manifest(Protocol):
    """Runs `install-cni manifest`."""

    def __call__(self, *arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        """Run it, helm and kubectl on its PATH, with further variables in its environment."""


def run(home: Path, *arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `install-cni manifest` with a home folder; further arguments are those of `Manifest`."""
    environment = {"PATH": f"{KUBE.folder}:/usr/bin:/bin", "HOME": str(home)} | golang.COMMAND
    return subprocess.run(
        [sys.executable, "-m", "installer", "manifest", *arguments],
        input=stdin, env=environment | variables, capture_output=True, text=True, timeout=SLOWEST, check=False,
    )  # fmt: skip


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return partial(run, tmp_path)


class Generate(Protocol):
    """Generates manifests."""

    def __call__(self, *arguments: str, stdin: str = "") -> Rendered:
        """Run `generate`; it must succeed."""


@pytest.fixture
def generate(manifest: Manifest) -> Generate:
    def generated(*arguments: str, stdin: str = "") -> Rendered:
        done = manifest("generate", *arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return Rendered(done.stdout)

    return generated


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The manifest of the 2019 guide, in a file."""
    file = tmp_path / "cni.yaml"
    file.write_text(OF_THE_GUIDE)
    return file


def last(rendered: Rendered) -> dict[str, Any]:
    """The last of the objects, which is the resource."""
    assert rendered.objects[-1]["kind"] == "IstioControlPlane"
    return rendered.objects[-1]


def dumped(*objects: dict[str, Any]) -> str:
    """Write objects as a person would."""
    return yaml.safe_dump_all(objects)


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running API server."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="package")
def paths(server: Cluster, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Where all is that a test may apply, but for the namespace, and the resource, which goes with its definition."""
    done = run(tmp_path_factory.mktemp("all"), "generate")
    assert done.returncode == 0, done.stderr
    return [server.admin.path(each) for each in Rendered(done.stdout).objects if each["kind"] != KIND]


@pytest.fixture
def cluster(server: Cluster, paths: list[str]) -> Iterator[Cluster]:
    """A running API server that knows nothing of us yet, or not any more."""
    yield server
    for path in paths:
        server.admin.delete(path)
    until(lambda: not any(map(server.admin.read, paths)), SLOWEST, "its definitions are gone, and the resources")
    until(lambda: GROUP not in str(server.admin.read("/apis")), SLOWEST, "its kinds are not served any more")
    server.forget_namespace("istio-system")
