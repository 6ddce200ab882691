"""One API server for all these tests; each test finds it as the chart has left it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.chart.helm import CHART
from tests.controller.stage import NAMESPACE, Controller, Stage
from tests.support.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    """A running API server that knows our definitions.

    Its folder is outside pytest's own, which each session closes to others: the controller is nobody, and reads its kubeconfig.
    """
    folder = Path(tempfile.mkdtemp(prefix="istio-cni-controller-"))
    folder.chmod(0o755)
    try:
        with Cluster(folder) as running:
            running.kubectl("apply", "--server-side", "--filename", str(CHART / "crds"))
            running.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
            running.kubectl("create", "namespace", NAMESPACE)
            yield running
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def empty_stage(cluster: Cluster, tmp_path: Path) -> Iterator[Stage]:
    """A cluster without the chart."""
    made = Stage(cluster, tmp_path)
    made.clear()
    yield made
    made.clear()


@pytest.fixture
def stage(empty_stage: Stage) -> Stage:
    """A cluster with the chart's objects."""
    empty_stage.install_chart()
    return empty_stage


class Run(Protocol):
    """Makes a controller, which ends with the test."""

    def __call__(self, name: str = "controller", *, deadline: int = 300, taint: bool = False) -> Controller:
        """Make it; `with` starts it and waits until it leads."""


@pytest.fixture
def controller(empty_stage: Stage) -> Iterator[Run]:
    made: list[Controller] = []

    def make(name: str = "controller", *, deadline: int = 300, taint: bool = False) -> Controller:
        made.append(Controller(empty_stage, name, deadline=deadline, taint=taint))
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    stage = getattr(item, "funcargs", {}).get("empty_stage")
    if report.failed and isinstance(stage, Stage):
        for log in sorted(stage.folder.glob("*.log")):
            report.sections.append((log.name, log.read_text()[-8000:]))
    return report
