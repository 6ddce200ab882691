"""With repairMode delete, what is said of a pod that cannot be deleted is said once, however often its turn comes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.kubernetes.conftest import ACCOUNT, SOON, events, report
from tests.kubernetes.sandboxes import knows_sandboxes, sandbox
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kubernetes.conftest import Node
    from tests.support.agent import AgentProcess
    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver

BARE = ("bare-1", "bare-2")
OWNED = ("owned-1", "owned-2", "owned-3", "owned-4")
OWNER = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart", "uid": "1f", "controller": True}
CANNOT, TURN = "cannot be deleted: no controller would start it again", "it is deleted when its turn comes"


@pytest.fixture
def may_delete(cluster: Cluster) -> Iterator[None]:
    """The account has the right that the chart gives with repairMode delete."""
    cluster.kubectl("create", "clusterrole", "deletes-pods", "--verb=delete", "--resource=pods")
    cluster.kubectl("create", "clusterrolebinding", "deletes-pods", "--clusterrole=deletes-pods", f"--user={ACCOUNT}")
    yield
    cluster.kubectl("delete", "clusterrolebinding,clusterrole", "deletes-pods")


@pytest.mark.usefixtures("may_delete")
def test_a_pod_that_cannot_be_deleted_does_not_wait_for_its_turn_again(
    tmp_path: Path, cluster: Cluster, node: Node, running: AgentProcess
) -> None:
    running.stop()
    with ExitStack() as ending:
        for number, name in enumerate((*BARE, *OWNED), 1):
            owner = OWNER if name in OWNED else None
            ending.enter_context(sandbox(tmp_path, cluster, node, name, f"10.9.1.{number}", owner=owner))
        knows_sandboxes(running, tmp_path)
        running.set("repair-mode", "delete")
        with running:
            until(lambda: "Deleted" in dict(events(cluster, OWNED[-1])), SOON, "the last one with an owner is deleted")
            for name in BARE:
                note = f"pod default/{name}: it runs without its redirect, and {CANNOT}"
                until(lambda note=note: note in _reported(cluster, node), SOON, "the report names the others")  # type: ignore[misc]
        for name in BARE:
            said = [note for _, note in events(cluster, name)]
            first = next(index for index, each in enumerate(said) if CANNOT in each)
            assert not any(TURN in each for each in said[first:]), said


def _reported(cluster: Cluster, node: Node) -> str:
    message: str = report(cluster, node)["conditions"][0]["message"]
    return message
