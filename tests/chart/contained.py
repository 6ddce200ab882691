"""The container of the DaemonSet of Istio's own chart, put together as the kubelet does, beside a real API server."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.contained import ContainedAgent, forwarded, lay_out

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.chart.istio_chart import IstiosChart
    from tests.support.cluster import Cluster
    from tests.support.netns import Netns

NAMESPACE, ACCOUNT = "istio-system", "istio-cni"
CONFLIST = "10-k8s.conflist"


def apply(cluster: Cluster, chart: IstiosChart) -> None:
    """Create all that helm would, but the DaemonSet, which nobody runs here."""
    objects = [each for each in chart.objects if each["kind"] != "DaemonSet"]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", text=text)


def contained(
    folder: Path,
    network: Netns,
    cluster: Cluster,
    node: str,
    chart: IstiosChart,
    *,
    program: Sequence[str] = (),
    image: Sequence[tuple[str, Path]] = (),
) -> ContainedAgent:
    """Put the container together.

    Args:
        folder: for its root and the node's folders: `conf` (where the primary CNI's conflist belongs), `bin`, `run/istio-cni`.
        network: the pod's.
        cluster: whose API server it is told.
        node: the node's name.
        chart: that describes it.
        program: instead of the chart's command; its arguments stay.
        image: folders that its image has besides: path in the container, and path here.
    """
    renamed = {"/opt/cni/bin": "bin", "/etc/cni/net.d": "conf", "/var/run/istio-cni": "run/istio-cni"}
    sources = {source: folder / renamed.get(source, source[1:]) for _, source, _ in chart.mounts()}
    sources["/proc"] = Path("/proc")
    for each in sources.values():
        each.mkdir(parents=True, exist_ok=True)
    lay_out(folder / "root")
    fields = {
        "spec.nodeName": node,
        "metadata.name": "istio-cni-node-x7k2p",
        "metadata.namespace": NAMESPACE,
        "limits.memory": "1073741824",
        "limits.cpu": str(os.cpu_count()),
    }
    api = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(cluster.port)}
    mounts = [(path, sources[source], read_only) for path, source, read_only in chart.mounts()]
    return ContainedAgent(
        folder,
        network,
        command=[*(program or chart.container["command"]), *(chart.container["args"] or ())],
        environment=chart.environment(fields) | api,
        mounts=[*mounts, *((path, source, True) for path, source in image)],
        capabilities=chart.container["securityContext"]["capabilities"]["add"],
        account={
            "token": cluster.token(NAMESPACE, ACCOUNT),
            "ca.crt": cluster.certificate.read_text(),
            "namespace": NAMESPACE,
        },
    )


@contextmanager
def forwarded_api(network: Netns, cluster: Cluster) -> Iterator[None]:
    """Have the API server answer on the loopback of a network, at its own port."""
    subprocess.run([*network.entered, "/usr/sbin/ip", "link", "set", "lo", "up"], check=True)
    with forwarded(network, cluster.port):
        yield
