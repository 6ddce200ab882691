"""Pods that istiod injects, on both nodes, with each backend: what passes, and what is refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.istio.mesh import PLAIN
from tests.e2e.shop import ENVOY, url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.istio.mesh import Mesh
    from tests.e2e.release import Release

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

REFUSED = r"read: Connection reset by peer|no HTTP answer, but 0 bytes"


@pytest.fixture(scope="module", params=["nft", "iptables-nft", "iptables-legacy"])
def backend(request: pytest.FixtureRequest, release: Release) -> str:
    """What writes the rules of the pods to come."""
    name: str = request.param
    release.steer(redirectBackend=name)
    return name


@pytest.fixture(scope="module")
def pair(mesh: Mesh, backend: str) -> Iterator[dict[str, Any]]:
    """An application on each node, by its name, and a plain one outside the mesh on the second."""
    first, second = mesh.cluster.nodes
    mesh.deploy("one", first)
    mesh.deploy("two", second)
    outside = mesh.start("outside", second, where=PLAIN)
    yield {"one": mesh.ready("one"), "two": mesh.ready("two"), "outside": outside}
    mesh.stop("one", "two")
    mesh.stop("outside", where=PLAIN)


def refused(ask: Callable[..., str], *arguments: Any, **named: Any) -> bool:
    """Say whether a connection is made and closed before it gets an answer."""
    with pytest.raises(AssertionError) as caught:
        ask(*arguments, **named)
    return re.search(REFUSED, str(caught.value)) is not None


def test_istio_finds_the_redirect_valid(mesh: Mesh, pair: dict[str, Any]) -> None:
    for name in ("one", "two"):
        assert "Validation passed" in mesh.log(name, "istio-validation")


def test_pods_on_both_nodes_use_mutual_tls_through_a_service(mesh: Mesh, pair: dict[str, Any]) -> None:
    for client, server in (("one", "two"), ("two", "one")):
        before = mesh.handshakes(server)
        assert mesh.ask(client, mesh.service(server)) == f"{server} {ENVOY}"
        assert mesh.handshakes(server) > before


def test_plaintext_is_refused(mesh: Mesh, pair: dict[str, Any]) -> None:
    for server in ("one", "two"):
        for target in (url(pair[server]), mesh.service(server)):
            assert refused(mesh.ask, "outside", target, where=PLAIN)
            for node in mesh.cluster.nodes:
                assert refused(mesh.ask_from, node, target)


def test_a_process_with_the_proxys_uid_bypasses_it_and_is_refused(mesh: Mesh, pair: dict[str, Any]) -> None:
    outside = mesh.service("outside", PLAIN)
    for client, server in (("one", "two"), ("two", "one")):
        answer = mesh.ask(client, outside, container="istio-proxy")
        assert answer == f"outside {pair[client]['status']['podIP']}", "its own address: it has gone round the sidecar"
        assert refused(mesh.ask, client, url(pair[server]), container="istio-proxy")
