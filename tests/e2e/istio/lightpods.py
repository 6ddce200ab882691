"""Pods in the mesh that cost next to nothing, and a judge that finds those among them that are not redirected."""

from __future__ import annotations

import base64
import json
import logging
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tests.support.images import PAUSE
from tests.support.machine import run_in
from tests.support.wait import BUSY, until

if TYPE_CHECKING:
    from types import TracebackType

    from tests.support.node import KubernetesNode, Worker

SLOWEST = 240.0  # seconds that a burst may take on a busy machine

_RESULTS = Path("/var/lib/cni/results")  # where libcni keeps what each sandbox was set up with
_NFT = "/usr/sbin/nft"
_numbers = count(1)
_log = logging.getLogger("tests.node")


class Sandbox(NamedTuple):
    """A sandbox that is there: its network namespace, and the types of the plugins that set it up."""

    netns: Path
    chain: list[str]

    @property
    def is_redirected(self) -> bool:
        """Whether our plugin was among them, and its rules are there."""
        return "istio-cni" in self.chain and self.has_rules

    @property
    def has_rules(self) -> bool:
        """Whether the plugin's rules are there, whoever wrote them."""
        return "redirect to :15001" in run_in(self.netns, [_NFT, "list", "ruleset"]).stdout


class LightPods:
    """Deployments of pods that only wait, in a namespace of their own; to the mesh they are injected pods."""

    def __init__(self, first: KubernetesNode) -> None:
        """Prepare; nothing of it is there before the block, and no pod after it."""
        self._first, self.namespace = first, f"light{next(_numbers)}"
        self._on: list[Worker] = []

    def deploy(self, each: int, *nodes: Worker) -> None:
        """Ask for so many pods on each of these nodes, and wait for none of them."""
        self._on = [*nodes]
        self._first.apply(*(_deployment(node.place.name, self.namespace, each) for node in nodes))

    def sandboxes(self) -> dict[str, Sandbox]:
        """List the sandboxes of these pods that are there, by the pod's uid."""
        return {uid: found for node in self._on for uid, found in _sandboxes(node, self.namespace)}

    def delete(self) -> None:
        """Delete all, as the API server has them: at once, as they are given no time to end."""
        of = f"--namespace={self.namespace}"
        self._first.kubectl("delete", "deployments", "--all", of, "--cascade=foreground", within=SLOWEST)

    def wait_for(self, number: int) -> None:
        """Wait until there are so many sandboxes."""
        _log.info("%s: waiting for %d sandboxes, for at most %.0f s", self.namespace, number, BUSY * SLOWEST)
        until(lambda: len(self.sandboxes()) >= number, SLOWEST, f"{number} sandboxes of {self.namespace}")

    def ready(self) -> None:
        """Wait until all are: no ADD was lost for good."""
        for node in self._on:
            self._first.rolled_out(f"deployment/{node.place.name}", self.namespace, SLOWEST)

    def names(self) -> set[str]:
        """Name the pods."""
        return {pod["metadata"]["name"] for pod in self._list("pods")}

    def repaired(self) -> set[str]:
        """Name the pods of which an Event says that they were redirected while they ran."""
        events = self._list("events")
        return {each["involvedObject"]["name"] for each in events if each["reason"] == "Redirected"}

    def unmeshed(self) -> set[str]:
        """Name the pods that are not redirected, or were not from their start on; those without a sandbox are among them."""
        there = self.sandboxes()
        pods = {pod["metadata"]["uid"]: pod["metadata"]["name"] for pod in self._list("pods")}
        return self.repaired() | {
            name for uid, name in pods.items() if uid not in there or not there[uid].is_redirected
        }

    def __enter__(self) -> Self:
        self._first.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.delete()
        self._first.kubectl("delete", "namespace", self.namespace, "--wait=false")

    def _list(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._first.read(kind, self.namespace)["items"]
        return found


def _deployment(node: str, namespace: str, replicas: int) -> dict[str, Any]:
    """Make a Deployment of pods on a node; a container of theirs has the sidecar's name."""
    pod = {
        "nodeSelector": {"kubernetes.io/hostname": node},
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "containers": [{"name": name, "image": PAUSE} for name in ("app", "istio-proxy")],
    }
    labels = {"app": node}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": node, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": {"sidecar.istio.io/status": "{}"}},
                "spec": pod,
            },
        },
    }


def _sandboxes(node: Worker, namespace: str) -> list[tuple[str, Sandbox]]:
    found = []
    for path in node.seen(_RESULTS).glob("k8s-*-eth0"):
        try:
            kept = json.loads(path.read_text())
        except (OSError, ValueError):
            continue  # it has gone meanwhile, or is being written
        told = dict(kept["cniArgs"])
        (netns,) = {node.seen(Path(each["sandbox"])) for each in kept["result"]["interfaces"] if each.get("sandbox")}
        if told["K8S_POD_NAMESPACE"] == namespace and netns.exists():
            plugins = json.loads(base64.b64decode(kept["config"]))["plugins"]
            found.append((told["K8S_POD_UID"], Sandbox(netns, [each["type"] for each in plugins])))
    return found
