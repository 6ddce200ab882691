"""A decision is made once for each pod and setting, however often its status changes, and kept as long as the pod."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from installer.pods.verdicts import Verdicts
from plugin.decision import Policy
from plugin.parameters import Defaults, InboundPorts
from plugin.redirect import Redirect
from tests.kubernetes.conftest import SOON, Agent, Node
from tests.support.wait import eventually

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from plugin.pod import Pod
    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver

RANGES = "traffic.sidecar.istio.io/includeOutboundIPRanges"
PORTS = "traffic.sidecar.istio.io/excludeOutboundPorts"
NAMES = ("one", "two", "three")


def redirected(verdicts: Verdicts, pods: Iterable[Pod]) -> int:
    """Count those that are redirected."""
    assert [each.pod for each in verdicts] == [*pods]
    return sum(isinstance(each.verdict, Redirect) for each in verdicts)


async def test_each_verdict_is_made_once(node: Node, kubeconfig: Path, agent: Agent, cluster: Cluster) -> None:
    most = {
        RANGES: ",".join(f"10.{n // 256}.{n % 256}.0/24" for n in range(900)),
        PORTS: ",".join(map(str, range(1, 500))),
    }
    for name in NAMES:
        node.start_pod(name, most)
    async with agent(node, kubeconfig) as pods:
        policies = [Policy()]
        verdicts = Verdicts(pods, lambda: policies[-1])
        for _ in range(3):
            await verdicts.update()
        assert (verdicts.count, redirected(verdicts, pods)) == (3, 3)

        before = {pod.uid: pod for pod in pods}
        for name in NAMES:
            status = json.dumps({"status": {"phase": "Running"}})
            cluster.kubectl("patch", "pod", name, "--subresource=status", f"--patch={status}")
        await eventually(lambda: all(pod is not before[pod.uid] for pod in pods), SOON, "each is heard of again")
        await verdicts.update()
        assert verdicts.count == 3

        node.annotate("one", {"sidecar.istio.io/interceptionMode": "NONE"})
        await eventually(lambda: any(len(pod.annotations) == 4 for pod in pods), SOON, "what has changed is heard of")
        await verdicts.update()
        assert (verdicts.count, redirected(verdicts, pods)) == (4, 2)

        policies.append(Policy(defaults=Defaults(inbound_ports=InboundPorts.ALL)))
        await verdicts.update()
        assert verdicts.count == 7

        node.end_pod("two")
        await eventually(lambda: pods.count == 2, SOON, "its end is heard of")
        await verdicts.update()
        assert (verdicts.count, len([*verdicts])) == (7, 2)
