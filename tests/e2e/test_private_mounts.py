"""The chart on a node whose mounts are not shared, as those of k3d and docker (F41)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.release import DAEMONSET, NAMESPACE, SLOWEST
from tests.e2e.shop import ENVOY, SHOP, from_node, removed, started, url
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.release import Release
    from tests.support.node import KubernetesNode

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture
def private(node: KubernetesNode) -> Iterator[KubernetesNode]:
    node.run(["/usr/bin/mount", "--make-rprivate", "/"])
    yield node
    node.run(["/usr/bin/mount", "--make-rshared", "/"])


def test_the_agent_starts_and_repairs_the_pods_from_before(private: KubernetesNode, release: Release) -> None:
    early = started(private, "early", injected=True)
    release.install("--set=cni.controller.enabled=false,cni.mountPropagation=None")
    private.rolled_out(DAEMONSET, NAMESPACE, SLOWEST)
    until(lambda: from_node(private, url(early)) == f"early {ENVOY}", 30, "its traffic goes through Envoy")
    later = started(private, "later", injected=True)
    assert from_node(private, url(later)) == f"later {ENVOY}"
    removed(private, "early", "later")
    (pod,) = release.agents()
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0, "it misses nothing"
    assert SHOP not in release.get("istiocninodes")["items"][0]["status"]["conditions"][0]["message"]
