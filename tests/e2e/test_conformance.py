"""What Kubernetes' own end-to-end suite passes on a cluster without our chart it passes with it, too."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conformance import give_images, judge
from tests.e2e.istio import coredns
from tests.e2e.release import Release
from tests.image.build import archive
from tests.programs.build import is_built
from tests.programs.lots import CONFORMANCE, NODE
from tests.support.node import TwoNodes, two_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLOWEST = 600.0  # seconds that a run of the suite may take on a busy machine

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2 * SLOWEST + 300)]

# A part of what docs/judges.md lists, for a few minutes; the environment may say another one.
_BOUNDED = "|".join(
    [
        r"sig-network.*Granular Checks: Pods.*(intra-pod communication: http|node-pod communication: udp)",
        r"sig-network.*(functioning NodePort|same port and different protocols)",
        r"sig-network.*provide DNS for services.*\[Conformance\]",
        r"sig-network.*same hostPort but different hostIP",
        r"named ports exposed by restartable init containers",
        r"SidecarContainers.*(prestop http hook|poststart exec hook)",
    ]
)
FOCUS = os.environ.get("CONFORMANCE_FOCUS", _BOUNDED)
PLUGINS = ["bridge", "portmap", "istio-cni"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[TwoNodes]:
    """Two nodes that are Ready, with DNS and the suite's images."""
    for lot, target in ((NODE, "istio"), (CONFORMANCE, "judges")):
        assert is_built(lot), f"no {lot.title} in {lot.folder}; `make {target}` builds it"
    with two_nodes(tmp_path / "two") as running:
        give_images(running)
        running.first.apply(*coredns.objects())
        running.first.wait("condition=Available", "deployment/coredns", f"--namespace={coredns.NAMESPACE}")
        yield running


def test_the_suite_passes_with_the_chart_what_it_passes_without(cluster: TwoNodes, tmp_path: Path) -> None:
    cluster.import_images(archive())
    release = Release(cluster.first, tmp_path, names=[node.place.name for node in cluster.nodes])
    release.restore()
    told = judge(cluster, tmp_path / "with.json", FOCUS, SLOWEST)
    assert [node.plugins_loaded() for node in cluster.nodes] == [PLUGINS, PLUGINS]
    assert [*told.values()].count("passed") > len(told) * 0.8, told
    failed = [name for name, state in told.items() if state not in ("passed", "skipped")]
    if failed:  # without the chart, too?
        release.uninstall()
        without = judge(cluster, tmp_path / "without.json", "|".join(map(re.escape, failed)), SLOWEST)
        assert [name for name in failed if without[name] == "passed"] == []
