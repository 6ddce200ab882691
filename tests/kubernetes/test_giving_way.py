"""An agent in Istio's own chart whose place Istio's own agent, its real program, has taken on the node: it gives way."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from installer.agent.shutdown import STOP_WITHIN
from tests.chart.contained import CONFLIST, apply, contained, forwarded_api
from tests.chart.contained import NAMESPACE as ISTIOS
from tests.chart.istio_chart import IstiosChart
from tests.kubernetes.conftest import PRIMARY, SOON, Node
from tests.kubernetes.conftest import apply as apply_object
from tests.kubernetes.test_side_by_side import PATIENCE, PROGRAM, owner, settled, written
from tests.programs.build import is_built
from tests.programs.lots import ISTIO
from tests.support.netns import Netns
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cluster import Cluster
    from tests.support.contained import ContainedAgent

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(900)]

OURS, OTHER = "istio-cni-node-x7k2p", "istio-cni-node-b4r9q"  # the pods
STEPS_ASIDE = "not installing: another agent has taken this one's place"
_numbers = itertools.count(1)


@dataclass
class Two:
    """Both agents of one node, and their pods as the API server knows them."""

    cluster: Cluster
    node: Node
    ours: ContainedAgent
    istios: ContainedAgent

    def pod(self, name: str, daemonset: str = "istio-cni-node") -> None:
        """Have a pod of a DaemonSet of its own."""
        uid = f"00000000-0000-4000-8000-{next(_numbers):012}"
        owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": daemonset, "uid": uid, "controller": True}
        self.node.start_pod(name, namespace=ISTIOS, owner=owner)

    def later_pod(self, name: str) -> None:
        """Have a pod that is younger than the others by what the API server tells: whole seconds."""
        (first,) = self.cluster.admin.read(f"/api/v1/namespaces/{ISTIOS}/pods?fieldSelector=metadata.name={OURS}")[
            "items"
        ]
        made = datetime.fromisoformat(first["metadata"]["creationTimestamp"])
        until(lambda: datetime.now(UTC) > made + timedelta(seconds=1), SOON, "the next second has come")
        self.pod(name)

    def terminate(self, name: str) -> None:
        """Have a pod be deleted, whose kubelet has not ended it yet."""
        self.cluster.core.delete_namespaced_pod(name, ISTIOS, grace_period_seconds=30)

    def said(self, message: str) -> list[str]:
        """Return the reasons in its log of a message."""
        lines = [json.loads(line) for line in self.ours.log.read_text().splitlines()]
        return [each["reason"] for each in lines if each["msg"] == message]

    def in_run(self) -> set[str]:
        """Name what is of this agent in the folder of the sockets."""
        return {each.name for each in (self.ours.root.parent / "run" / "istio-cni").iterdir() if "agent" in each.name}


@pytest.fixture
def two(tmp_path: Path, cluster: Cluster, node: Node) -> Iterator[Two]:
    """Both, prepared for the same folders of one node, by the same chart."""
    assert is_built(ISTIO), f"no {ISTIO.title} in {ISTIO.folder}; `make istio` builds it"
    plugin, other = tmp_path / "image", tmp_path / "istios"
    for each in (plugin, other):
        each.mkdir()
    shutil.copy2(ISTIO.folder / "istio-cni", plugin)
    for name in ("conf", "bin", "run"):
        (tmp_path / name).mkdir()
        (other / name).symlink_to(tmp_path / name)
    (tmp_path / "conf" / CONFLIST).write_text(PRIMARY)
    for kind, name in (("Namespace", ISTIOS), ("Node", node.name)):
        apply_object(cluster, {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}})
    with ExitStack() as stack:
        networks = [stack.enter_context(Netns(tmp_path / each)) for each in ("pod1", "pod2")]
        for network in networks:
            stack.enter_context(forwarded_api(network, cluster))
        chart = IstiosChart(tmp_path, {"repair": {"enabled": False}})
        apply(cluster, chart)
        image = [("/opt/cni/bin", plugin)]
        ours = contained(tmp_path, networks[0], cluster, node.name, chart)
        istios = contained(other, networks[1], cluster, node.name, chart, program=PROGRAM, image=image)
        stack.callback(istios.stop, within=PATIENCE)
        stack.callback(ours.stop, within=STOP_WITHIN)
        yield Two(cluster, node, ours, istios)
    for kind in ("clusterrole", "clusterrolebinding"):
        cluster.kubectl("delete", kind, "istio-cni", "--ignore-not-found")


def test_one_that_is_stopped_leaves_the_node_to_istios_agent(two: Two) -> None:
    two.pod(OURS)
    two.ours.start().ready()
    two.pod(OTHER)
    two.istios.start()
    settled(two.ours, "ours")
    two.terminate(OURS)
    assert two.ours.stop(within=STOP_WITHIN) == 0
    settled(two.ours, "istios")
    assert two.in_run() == set()


@pytest.mark.parametrize("is_terminating", [True, False])
def test_one_that_starts_late_does_not_install(two: Two, *, is_terminating: bool) -> None:
    two.pod(OURS)
    two.later_pod(OTHER)
    if is_terminating:
        two.terminate(OURS)
    two.istios.start()
    settled(two.ours, "istios")
    before = written(two.ours)
    process = two.ours.start().process
    assert process
    assert process.wait(SOON) == 0
    assert written(two.ours) == before
    assert two.in_run() == set()
    assert OTHER in two.said(STEPS_ASIDE)[0]


def test_what_one_that_was_killed_has_left_the_next_takes_out(two: Two) -> None:
    two.pod(OURS)
    two.later_pod(OTHER)
    two.ours.start().ready()
    two.istios.start()
    settled(two.ours, "ours")
    two.ours.stop(signal.SIGKILL)
    two.ours.start()
    settled(two.ours, "istios")
    assert two.in_run() == set()


def test_one_whose_successor_is_not_there_stays_beside_istios(two: Two) -> None:
    two.pod(OTHER)  # the one that is replaced, or still another
    two.pod("another", daemonset="another")
    two.terminate(OTHER)
    two.pod(OURS)
    two.istios.start()
    settled(two.ours, "istios")
    two.ours.start().ready()
    settled(two.ours, "ours")
    two.terminate(OURS)
    assert two.ours.stop(within=STOP_WITHIN) == 0
    assert owner(two.ours) == "ours", two.ours.log.read_text()


def test_one_whose_successor_is_another_of_its_kind_leaves_all_in_place(two: Two) -> None:
    two.pod(OURS)
    two.ours.start().ready()
    two.later_pod(OTHER)
    two.terminate(OURS)
    before = written(two.ours)
    assert two.ours.stop(within=STOP_WITHIN) == 0
    assert written(two.ours) == before, two.ours.log.read_text()
