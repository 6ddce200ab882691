"""Running mesh pods with a netns, as the API server, containerd and libcni keep them."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support.netns import Netns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kubernetes.conftest import Node
    from tests.support.agent import AgentProcess
    from tests.support.cluster import Cluster


@contextmanager
def sandbox(
    folder: Path, cluster: Cluster, node: Node, name: str, address: str, *, owner: dict[str, object] | None = None
) -> Iterator[Netns]:
    """Run a pod without rules; its netns and result are in `folder`, and `owner` is the controller that made it."""
    netns_dir, results = folder / "netns", folder / "cni" / "results"
    netns_dir.mkdir(exist_ok=True)
    results.mkdir(parents=True, exist_ok=True)
    with Netns(netns_dir / name) as netns:
        for command in (
            ["link", "add", "eth0", "type", "veth", "peer", "name", "peer"],
            ["address", "add", f"{address}/24", "dev", "eth0"],
        ):
            subprocess.run(["/usr/bin/nsenter", f"--net={netns.path}", "/sbin/ip", *command], check=True)
        uid = node.start_pod(name, owner=owner)
        status = {"phase": "Running", "podIPs": [{"ip": address}]}
        cluster.core.patch_namespaced_pod_status(name, "default", {"status": status})
        of = {"K8S_POD_NAMESPACE": "default", "K8S_POD_NAME": name, "K8S_POD_UID": uid}
        kept = {
            "kind": "cniCacheV1", "containerId": name, "ifName": "eth0", "networkName": "k8s", "config": "",
            "cniArgs": [*of.items()], "netns": str(netns.path),
            "result": {"cniVersion": "1.0.0", "ips": [{"address": f"{address}/24"}]},
        }  # fmt: skip
        (results / f"k8s-{name}-eth0").write_text(json.dumps(kept))
        yield netns


def knows_sandboxes(agent: AgentProcess, folder: Path) -> None:
    """Have an agent look for them in `folder` from its next start on."""
    agent.set("netns-dir", folder / "netns")
    agent.set("cni-cache-dir", folder / "cni")
