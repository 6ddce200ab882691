"""What Istio's own plugin needs stays until the agent of each node is replaced, whenever the release is upgraded again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.chart.helm import CHART

if TYPE_CHECKING:
    from tests.chart.conftest import Release

pytestmark = pytest.mark.apiserver

ALL = {"desiredNumberScheduled": 3, "currentNumberScheduled": 3, "numberMisscheduled": 0}
DONE = {"updatedNumberScheduled": 3, "numberReady": 3}


def test_the_account_of_istios_plugin_stays_until_all_agents_are_replaced(release: Release) -> None:
    release.helm("install", "istio-cni", str(CHART))
    owned = {"meta.helm.sh/release-name": "istio-cni", "meta.helm.sh/release-namespace": release.namespace}
    metadata = {"name": "istio-cni", "annotations": owned, "labels": {"app.kubernetes.io/managed-by": "Helm"}}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    release.cluster.kubectl("create", f"--namespace={release.namespace}", "--filename=-", text=json.dumps(account))
    assert stays(release, generation=0, **DONE), "the numbers are of Istio's own agents"
    assert stays(release, updatedNumberScheduled=1, numberReady=3)
    assert stays(release, updatedNumberScheduled=3, numberReady=2), "that of one node has not started"
    assert not stays(release, **DONE)


def stays(release: Release, *, generation: int = 1, **numbers: int) -> bool:
    """Whether an upgrade keeps it, with this status of the DaemonSet."""
    status = {"status": ALL | {"observedGeneration": generation} | numbers}
    where = ("daemonset/istio-cni-node", f"--namespace={release.namespace}", "--subresource=status", "--type=merge")
    release.cluster.kubectl("patch", *where, f"--patch={json.dumps(status)}")
    shown = release.helm("upgrade", "istio-cni", str(CHART), "--dry-run=server")
    return "kind: ServiceAccount\nmetadata:\n  name: istio-cni\n" in shown
