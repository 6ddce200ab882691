"""Two nodes, the chart and Istio, once for all of these tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.docs.istio_page import Shell
from tests.e2e.istio.images import images
from tests.e2e.istio.istios_agent import gone
from tests.e2e.istio.lightpods import LightPods
from tests.e2e.istio.mesh import Mesh
from tests.e2e.release import Release
from tests.image.build import archive
from tests.programs.build import is_built
from tests.programs.lots import ISTIO, NODE
from tests.support.images import write
from tests.support.node import TwoNodes, two_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    """Two nodes that are Ready."""
    with two_nodes(tmp_path_factory.mktemp("two")) as running:
        yield running


@pytest.fixture(scope="package")
def release(cluster: TwoNodes, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The chart, ready on both nodes."""
    cluster.import_images(archive())
    names = [node.place.name for node in cluster.nodes]
    made = Release(cluster.first, tmp_path_factory.mktemp("helm"), names=names)
    made.install()
    made.ready()
    made.steer()
    return made


@pytest.fixture(scope="package")
def mesh(cluster: TwoNodes, release: Release, tmp_path_factory: pytest.TempPathFactory) -> Mesh:
    """Istio, ready."""
    for lot in (NODE, ISTIO):
        assert is_built(lot), f"no {lot.title} in {lot.folder}; `make istio` builds it"
    home = tmp_path_factory.mktemp("istio")
    tar = write(home / "images.tar", images())
    cluster.import_images(tar)
    tar.unlink()
    made = Mesh(cluster, home)
    made.install()
    return made


@pytest.fixture(scope="module")
def server(mesh: Mesh) -> Iterator[str]:
    """Where an application in the mesh, on the first node, answers."""
    mesh.start("server", mesh.cluster.first)
    yield mesh.service("server")
    mesh.stop("server")


@pytest.fixture
def shell(mesh: Mesh, tmp_path: Path) -> Shell:
    """A shell on the first node of whoever follows the page."""
    return Shell(tmp_path, mesh.node.kubeconfig, enter=mesh.node.enter)


@pytest.fixture(scope="module")
def without_release(mesh: Mesh, release: Release) -> Iterator[Mesh]:
    """A mesh without the chart; the IstioControlPlane is there, and after these tests the chart."""
    release.uninstall()
    yield mesh
    release.install()
    release.ready()
    release.steer()


@pytest.fixture
def no_agent(without_release: Mesh, shell: Shell) -> Iterator[Mesh]:
    """A mesh without agents; after the test there is no release of the name that both charts use."""
    yield without_release
    shell("helm uninstall istio-cni --namespace istio-system --ignore-not-found --wait")
    gone(without_release.node)  # a container of its that starts again would find what the next test installs


@pytest.fixture
def light(cluster: TwoNodes, release: Release) -> Iterator[LightPods]:
    """No pods yet; the agents are ready, and redirect with nft."""
    release.steer(redirectBackend="nft")
    release.ready()
    with LightPods(cluster.first) as pods:
        yield pods
