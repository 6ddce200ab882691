"""The chart by helm, and one API server for the tests that install it."""

from __future__ import annotations

import itertools
import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.chart.helm import CHART, Rendered, helm
from tests.support.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_numbers = itertools.count(1)


class Render(Protocol):
    """Renders the chart."""

    def __call__(self, values: Mapping[str, Any] | None = None, *options: str) -> Rendered:
        """Render it with values, and with options of `helm template`; it must succeed."""


class Refuse(Protocol):
    """Has helm refuse values."""

    def __call__(self, values: Mapping[str, Any], *options: str) -> str:
        """Render the chart with values that it must not take, and with options, and return what helm says."""


@pytest.fixture
def render(tmp_path: Path) -> Render:
    def rendered(values: Mapping[str, Any] | None = None, *options: str) -> Rendered:
        where = ("--namespace=istio-system", *options)
        done = helm("template", "release", str(CHART), *where, values=values or {}, home=tmp_path)
        assert done.returncode == 0, done.stderr
        return Rendered(done.stdout)

    return rendered


@pytest.fixture
def refuse(tmp_path: Path) -> Refuse:
    def refused(values: Mapping[str, Any], *options: str) -> str:
        done = helm("template", "release", str(CHART), *options, values=values, home=tmp_path)
        assert done.returncode != 0, f"{values} was taken:\n{done.stdout}"
        return done.stderr

    return refused


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running API server."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@dataclass
class Release:
    """A release of the chart in a namespace of its own."""

    cluster: Cluster
    namespace: str
    home: Path
    helm_ran: bool = False

    def helm(self, *arguments: str, values: Mapping[str, Any] | None = None, compares: bool = False) -> str:
        """Run helm as the admin, and return its stdout; it must succeed."""
        done = self.try_helm(*arguments, values=values, compares=compares)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def try_helm(
        self, *arguments: str, values: Mapping[str, Any] | None = None, compares: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run helm as the admin."""
        self.helm_ran = True
        where = (f"--kubeconfig={self.cluster.folder / 'admin.kubeconfig'}", f"--namespace={self.namespace}")
        return helm(*arguments, *where, values=values, home=self.home, compares=compares)


@pytest.fixture
def release(cluster: Cluster, tmp_path: Path) -> Iterator[Release]:
    """A release that is not installed yet; what is left of it is taken away."""
    made = Release(cluster, f"mesh-{next(_numbers)}", tmp_path)
    cluster.admin.create("/api/v1/namespaces", {"metadata": {"name": made.namespace}})
    yield made
    if made.helm_ran:
        made.helm("uninstall", "istio-cni", "--ignore-not-found", "--no-hooks")  # nobody runs Jobs here


class Applied(Protocol):
    """Applies an object."""

    def __call__(self, resource: Mapping[str, Any], *options: str) -> subprocess.CompletedProcess[str]:
        """Run `kubectl apply` as the admin, with these options."""


@pytest.fixture(scope="package")
def apply(cluster: Cluster) -> Applied:
    def applied(resource: Mapping[str, Any], *options: str) -> subprocess.CompletedProcess[str]:
        admin = f"--kubeconfig={cluster.folder / 'admin.kubeconfig'}"
        command = cluster.kubectl_command(admin, "apply", "--filename=-", *options)
        text = json.dumps(resource)
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)

    return applied
