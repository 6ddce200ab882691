"""The node of a soak: its agent, the pods' manifests, and calls as a container runtime makes them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from tests.soak.ledger import Sample
from tests.support.agent import AgentProcess
from tests.support.call import FROZEN, Answer, Plugin

if TYPE_CHECKING:
    from pathlib import Path

    from tests.soak.ledger import Ledger

TRAFFIC = "traffic.sidecar.istio.io/"
STATUS = "sidecar.istio.io/status"
PODS: dict[str, dict[str, str]] = {  # the annotations of each kind of pod
    "meshed": {STATUS: "{}", TRAFFIC + "includeInboundPorts": "*"},
    "tproxy": {STATUS: "{}", "sidecar.istio.io/interceptionMode": "TPROXY", TRAFFIC + "includeInboundPorts": "*"},
    "plain": {},
    "invalid": {STATUS: "{}", TRAFFIC + "excludeOutboundPorts": "80; drop"},
    "oversized": {
        STATUS: "{}",
        **{
            TRAFFIC + kind: ",".join(str(1000 + number) for number in range(1024))
            for kind in ("includeInboundPorts", "includeOutboundPorts", "excludeOutboundPorts")
        },
        TRAFFIC + "includeOutboundIPRanges": ",".join(f"10.{n // 256}.{n % 256}.0/24" for n in range(1024)),
        TRAFFIC + "excludeInterfaces": ",".join(f"eth{number}" for number in range(16)),
    },
}
MESHED = ("meshed", "tproxy")
REFUSED = ("invalid", "oversized")


class SoakNode:
    """A node below a folder, and the agent on it."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.folder = folder
        self.conflist = folder / "conf" / "10-primary.conflist"
        for name in ("conf", "bin", "pods"):
            (folder / name).mkdir()
        self.conflist.write_bytes(primary(0))
        self.agent = AgentProcess(
            folder,
            conf_dir=folder / "conf",
            bin_dir=folder / "bin",
            options={"pods-from": folder / "pods", "log-level": "warn", "cni-cache-dir": folder / "cache"},
        )
        self._ledger = ledger
        self._plugin = Plugin("soak", (os.fspath(FROZEN),), folder, chrooted=False)
        self._life, self._started = -1, 0.0
        for kind, said in PODS.items():
            sidecar = [{"name": "istio-proxy"}] if said else []
            metadata = {"name": kind, "namespace": "soak", "annotations": said}
            pod = {"metadata": metadata, "spec": {"containers": [{"name": "app"}, *sidecar]}}
            (folder / "pods" / f"{kind}.json").write_text(json.dumps({"apiVersion": "v1", "kind": "Pod"} | pod))

    def start(self) -> None:
        """Start the agent, and wait until it is ready."""
        self._life, self._started = self._life + 1, time.monotonic()
        self.agent.start().ready()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the agent."""
        self.agent.stop(number)

    async def call(self, command: str, kind: str, number: int, netns: Path | None) -> Answer:
        """Call the plugin for a pod, as libcni does."""
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": f"{number:064x}",
            "CNI_NETNS": str(netns or ""),
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": f"K8S_POD_NAMESPACE=soak;K8S_POD_NAME={kind}",
        }
        config: dict[str, Any] = {
            "agentSocket": str(self.agent.socket),
            "cniVersion": "1.0.0",
            "exclude_namespaces": [],
            "name": "k8s",
            "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.3/24"}]},
            "type": "istio-cni",
        }
        return await self._plugin(environment, b"" if command == "DEL" else config)  # a DEL ends without reading it

    async def sample(self) -> None:
        """Look at the agent's process."""
        await asyncio.sleep(2)
        process = self.agent.process
        if process is None:
            return
        try:
            descriptors, rss = len(os.listdir(f"/proc/{process.pid}/fd")), self.agent.rss()  # noqa: PTH208 - the names alone
        except (OSError, AssertionError):  # it ends at this moment
            return
        age, log = time.monotonic() - self._started, self.agent.log.stat().st_size
        self._ledger.samples.append(Sample(self._life, age, rss, descriptors, log))


def primary(number: int) -> bytes:
    """Write the conflist of a primary CNI, each time another one."""
    plugins = [{"type": "bridge", "mtu": 1000 + number}]
    return json.dumps({"cniVersion": "1.0.0", "name": "k8s", "plugins": plugins}, indent=2).encode()
