"""From istio-init to this agent and back, with the real injector, pod by pod under traffic."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING

import pytest

from tests.e2e.istio.mesh import PRIVILEGED
from tests.e2e.shop import ENVOY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.istio.mesh import Mesh
    from tests.e2e.release import Release

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

INIT, VALIDATION = "istio-init", "istio-validation"
CLIENT, SERVER = "client", "server"


@pytest.fixture
def without_agent(mesh: Mesh, release: Release) -> Iterator[Mesh]:
    """A mesh whose pods istio-init redirects, and no agent on the nodes; other tests find both as before."""
    release.uninstall()
    mesh.leave_redirect_to(INIT)
    yield mesh
    mesh.leave_redirect_to(VALIDATION)
    release.install()
    release.ready()
    release.steer()


def ask(mesh: Mesh, client: str, server: str) -> str:
    """Ask the Service of an application from another one, under STRICT mutual TLS: it answers only through both sidecars."""
    return mesh.ask(client, mesh.service(server, PRIVILEGED), where=PRIVILEGED)


@contextmanager
def traffic(mesh: Mesh) -> Iterator[None]:
    """Ask again and again within the block, and see that each request is answered by the other's sidecar."""
    done, answers = Event(), Counter[str]()

    def keep_asking() -> None:
        while not done.is_set():
            answers[ask(mesh, CLIENT, SERVER)] += 1

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(keep_asking)
        try:
            yield
        finally:
            done.set()
        asking.result()
    assert answers.keys() == {f"{SERVER} {ENVOY}"}


def redirected_by(mesh: Mesh, name: str) -> str:
    """Name what redirects the pod of an application."""
    (found,) = {INIT, VALIDATION} & {each["name"] for each in mesh.pod(name, PRIVILEGED)["spec"]["initContainers"]}
    return found


def test_pods_move_one_after_another_and_back_and_no_request_is_lost(without_agent: Mesh, release: Release) -> None:
    mesh = without_agent
    first, second = mesh.cluster.nodes
    mesh.deploy(CLIENT, first, where=PRIVILEGED)
    mesh.deploy(SERVER, second, where=PRIVILEGED)
    for name in (CLIENT, SERVER):
        mesh.ready(name, where=PRIVILEGED)
        assert redirected_by(mesh, name) == INIT
    assert ask(mesh, CLIENT, SERVER) == f"{SERVER} {ENVOY}"

    with traffic(mesh):
        release.install()
        release.ready()
        mesh.leave_redirect_to(VALIDATION)
    events = ("get", "events", f"--namespace={PRIVILEGED}", "--field-selector=reason=Redirected", "--output=name")
    assert not mesh.node.kubectl(*events), "the agent leaves pods alone that istio-init has redirected"
    assert "Unredirected" not in release.status()
    for moved, other in ((SERVER, CLIENT), (CLIENT, SERVER)):
        mesh.restart(moved, where=PRIVILEGED)
        assert redirected_by(mesh, moved) == VALIDATION
        assert ask(mesh, moved, other) == f"{other} {ENVOY}"
        assert ask(mesh, other, moved) == f"{moved} {ENVOY}"

    with traffic(mesh):
        mesh.leave_redirect_to(INIT)
    for moved, other in ((CLIENT, SERVER), (SERVER, CLIENT)):
        mesh.restart(moved, where=PRIVILEGED)
        assert redirected_by(mesh, moved) == INIT
        assert ask(mesh, moved, other) == f"{other} {ENVOY}"
        assert ask(mesh, other, moved) == f"{moved} {ENVOY}"
    with traffic(mesh):
        release.uninstall()
    mesh.stop(CLIENT, SERVER, where=PRIVILEGED)
