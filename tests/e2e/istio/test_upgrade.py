"""An upgrade of the agent under traffic: no request goes round a sidecar, and no pod is left without one (F7)."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.istio.mesh import PLAIN
from tests.e2e.istio.test_mesh import refused
from tests.e2e.release import Release
from tests.e2e.shop import ENVOY, url
from tests.programs.lots import KUBE, NODE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.istio.mesh import Mesh
    from tests.programs.program import Lot

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def asked_until(done: Event, mesh: Mesh, target: str) -> Counter[str]:
    """Ask from an application in the mesh, one request after the other, and count the answers."""
    answers = Counter[str]()
    while not done.is_set():
        answers[mesh.ask("client", target)] += 1
    return answers


@pytest.mark.parametrize("lot", [KUBE, NODE], ids=["helm 3", "helm 4"])
def test_no_request_bypasses_a_sidecar_during_a_rolling_upgrade(
    mesh: Mesh, release: Release, lot: Lot, tmp_path: Path
) -> None:
    first, second = mesh.cluster.nodes
    upgrade = Release(mesh.node, tmp_path, program=lot.folder / "helm")
    mesh.start("client", first)
    mesh.start("server", second)
    mesh.start("outside", first, where=PLAIN)
    target, done = mesh.service("server"), Event()
    agents = {pod["metadata"]["uid"] for pod in release.agents()}
    with ThreadPoolExecutor() as pool:
        answers = pool.submit(asked_until, done, mesh, target)
        try:
            upgrade.install(f"--set=cni.podAnnotations.helm={lot.name}")
            young = list[tuple[str, dict[str, Any]]]()
            while not release.rolled_out():
                for node in mesh.cluster.nodes:
                    name = f"young{len(young)}"
                    young.append((name, mesh.start(name, node)))
        finally:
            done.set()
    assert agents.isdisjoint(pod["metadata"]["uid"] for pod in release.agents()), "each agent was replaced"
    assert {*answers.result()} == {f"server {ENVOY}"}
    assert young, "pods came while agents were replaced"
    for name, pod in young:
        assert mesh.ask(name, target) == f"server {ENVOY}"
        assert refused(mesh.ask, "outside", url(pod), where=PLAIN)
    mesh.stop("client", "server", *(name for name, _ in young))
    mesh.stop("outside", where=PLAIN)
