"""From istio-init to this agent and back with the page's commands and the real injector, pod by pod under traffic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.docs.istio_page import commands
from tests.e2e import workloads
from tests.e2e.istio.istios_agent import left_in_run
from tests.e2e.istio.mesh import INIT, VALIDATION
from tests.e2e.shop import ENVOY, SHOP
from tests.e2e.test_chart import all_files
from tests.e2e.traffic import traffic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from tests.docs.istio_page import Shell
    from tests.e2e.istio.mesh import Mesh
    from tests.e2e.release import Release

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

CLIENT, SERVER = "client", "server"
AGENTS = "--namespace=kube-system", "--selector=k8s-app=istio-cni-node"  # as the page installs them


@pytest.fixture
def without_agent(without_release: Mesh, shell: Shell) -> Iterator[Mesh]:
    """A mesh whose pods istio-init redirects, and no agent on the nodes; other tests find both as before."""
    mesh = without_release
    shop = workloads.namespace(SHOP, level="privileged")  # istio-init needs capabilities
    shop["metadata"]["labels"]["istio-injection"] = "enabled"
    mesh.node.apply(shop)
    shell(commands("Back again", "helm upgrade istiod")[0])
    mesh.injects(INIT)
    yield mesh
    for command in commands("Set up", "helm upgrade istiod"):
        shell(command)
    mesh.injects(VALIDATION)
    shell("helm uninstall istio-cni --namespace kube-system --ignore-not-found --wait")


def ask(mesh: Mesh, client: str, server: str) -> str:
    """Ask the Service of an application from another one, under STRICT mutual TLS: it answers only through both sidecars."""
    return mesh.ask(client, mesh.service(server, SHOP), where=SHOP)


def asked(mesh: Mesh) -> AbstractContextManager[None]:
    """Have the client ask without a pause within the block, and see that the server's sidecar answers each request."""
    return traffic(mesh.asking(CLIENT, mesh.service(SERVER, SHOP), where=SHOP), f"{SERVER} {ENVOY}")


def redirected_by(mesh: Mesh, name: str) -> str:
    """Name what redirects the pod of an application."""
    (found,) = {INIT, VALIDATION} & {each["name"] for each in mesh.pod(name, SHOP)["spec"]["initContainers"]}
    return found


def all_ask(mesh: Mesh) -> None:
    """See that each application reaches the other one through both sidecars."""
    for one, other in ((CLIENT, SERVER), (SERVER, CLIENT)):
        assert ask(mesh, one, other) == f"{other} {ENVOY}"


def test_pods_move_one_after_another_and_back_and_no_request_is_lost(
    without_agent: Mesh, release: Release, shell: Shell
) -> None:
    mesh = without_agent
    before = [all_files(node) for node in mesh.cluster.nodes]
    for name, node in zip((CLIENT, SERVER), mesh.cluster.nodes, strict=True):
        mesh.deploy(name, node, where=SHOP)
    for name in (CLIENT, SERVER):
        mesh.ready(name, where=SHOP)
        assert redirected_by(mesh, name) == INIT
    all_ask(mesh)

    *agents_first, restart = commands("From istio-init", "helm install istio-cni")
    with asked(mesh):
        for command in agents_first:
            shell(command)
        mesh.injects(VALIDATION)
    events = ("get", "events", f"--namespace={SHOP}", "--field-selector=reason=Redirected", "--output=name")
    assert not mesh.node.kubectl(*events), "the agent leaves pods alone that istio-init has redirected"
    assert "Unredirected" not in release.status()
    mesh.restart(SERVER, where=SHOP)
    assert [redirected_by(mesh, name) for name in (CLIENT, SERVER)] == [INIT, VALIDATION]
    all_ask(mesh)
    with mesh.replaced(CLIENT, SERVER, where=SHOP):
        shell(restart)
    assert [redirected_by(mesh, name) for name in (CLIENT, SERVER)] == [VALIDATION, VALIDATION]
    all_ask(mesh)

    change_over, restart, uninstall = commands("Back again", "helm upgrade istiod")
    with asked(mesh):
        shell(change_over)
        mesh.injects(INIT)
    mesh.restart(CLIENT, where=SHOP)
    assert [redirected_by(mesh, name) for name in (CLIENT, SERVER)] == [INIT, VALIDATION]
    all_ask(mesh)
    with mesh.replaced(CLIENT, SERVER, where=SHOP):
        shell(restart)
    assert [redirected_by(mesh, name) for name in (CLIENT, SERVER)] == [INIT, INIT]
    all_ask(mesh)
    with asked(mesh):
        shell(uninstall)
        mesh.node.kubectl("wait", "--for=delete", "pod", *AGENTS, "--timeout=240s", within=250)
    assert [all_files(node) for node in mesh.cluster.nodes] == before
    assert [left_in_run(node) for node in mesh.cluster.nodes] == [set(), set()]
    mesh.stop(CLIENT, SERVER, where=SHOP)
