"""What is to be logged of a pod is logged at the default level, once for each pod."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from installer.agent.outcomes import MOST, Warnings
from plugin.handler import Outcome
from tests.support.agent import AgentProcess
from tests.support.netns import Netns

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kubernetes.conftest import Node
    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver

PRIMARY = '{"cniVersion": "1.0.0", "name": "k8s", "plugins": [{"type": "bridge"}]}'


def said(agent: AgentProcess) -> list[tuple[str, str, str]]:
    """Level, pod and reason of each line that is about a pod."""
    lines = [json.loads(line) for line in agent.log.read_text().splitlines() if line.startswith("{")]
    return [(line["level"], line["pod"], line["reason"]) for line in lines if "pod" in line]


async def test_each_notice_is_logged_once_per_pod(
    tmp_path: Path, cluster: Cluster, node: Node, kubeconfig: Path
) -> None:
    for folder in ("conf", "bin"):
        (tmp_path / folder).mkdir()
    (tmp_path / "conf" / "10-k8s.conflist").write_text(PRIMARY)
    spec: dict[str, Any] = {
        "nodeName": node.name,
        "containers": [{"name": each, "image": "none"} for each in ("app", "istio-proxy")],
        "initContainers": [{"name": "istio-init", "image": "none"}],
    }
    old, dual = f"old-{node.name}", f"dual-{node.name}"
    metadata = {"name": old, "annotations": {"sidecar.istio.io/status": "{}"}}
    created: Any = cluster.core.create_namespaced_pod("default", {"metadata": metadata, "spec": spec})  # type: ignore[arg-type]
    node.started(old)
    uids = {old: created.metadata.uid, dual: node.start_pod(dual)}
    options: dict[str, str | Path] = {"node-name": node.name, "kubeconfig": kubeconfig, "log-level": "warn"}
    with (
        AgentProcess(tmp_path, conf_dir=tmp_path / "conf", bin_dir=tmp_path / "bin", options=options) as agent,
        Netns(tmp_path / "netns") as netns,
    ):
        await asyncio.to_thread(agent.ready)
        for name, uid in [*uids.items()] * 3:
            answer = await agent.add(netns, "default", name, uid, addresses=("10.1.2.3/24", "fd00::7/64"))
            assert answer.status == 0, answer.stdout
        about = said(agent)
    assert [(level, name) for level, name, _ in about] == [("warn", old), ("warn", dual)]
    assert "istio-init" in about[0][2]
    assert "fd00::7" in about[1][2]


@pytest.mark.parametrize(
    "change", [{"row": "istio-init"}, {"bypassing": 1}, {"ipv6_off": True}, {"mismatch": "differ"}]
)
def test_memory_of_noticed_pods_is_bounded(caplog: pytest.LogCaptureFixture, change: dict[str, Any]) -> None:
    plain = Outcome("ADD", "shop", "web", "0", "pass", None, "why", 0, 0.0)
    warnings = Warnings()
    with caplog.at_level(logging.WARNING):
        for number in [*range(MOST + 100), MOST + 99]:
            warnings.log(replace(plain, pod_uid=str(number), **change))
            warnings.log(replace(plain, pod_uid=str(number)))
    assert len(caplog.records) == MOST + 100
    assert len(warnings._logged) == MOST
