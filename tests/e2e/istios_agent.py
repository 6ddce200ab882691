"""Istio's own agent on the node, its real program by its own chart, or this image in its place."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.e2e.istio.images import netfilter
from tests.e2e.release import DAEMONSET, SLOWEST
from tests.e2e.shop import ENVOY, from_node, started, url
from tests.e2e.test_chart import all_files
from tests.image.build import archive
from tests.programs.build import is_built
from tests.programs.lots import ISTIO
from tests.support.images import Image, write
from tests.support.wait import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.node import KubernetesNode

NAMESPACE = "istio-system"
AGENTS = f"--namespace={NAMESPACE}", "--selector=k8s-app=istio-cni-node"
VALUES = {  # of its chart
    "hub": "tests.local",
    "tag": "1",
    "pullPolicy": "Never",
    "resources": {"requests": {"cpu": "10m"}},
    "logging": {"level": "info"},
}


def prepare(node: KubernetesNode, folder: Path) -> None:
    """Give the node the images of both agents, and their namespace."""
    assert is_built(ISTIO), f"no {ISTIO.title} in {ISTIO.folder}; `make istio` builds it"
    node.import_images(archive())
    tar = write(folder / "istio.tar", [_image()])
    node.import_images(tar)
    tar.unlink()
    node.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})


def rolled_out(node: KubernetesNode) -> None:
    """Wait until all agents are ready, and none of another kind is left."""
    node.rolled_out(DAEMONSET, NAMESPACE, SLOWEST)


def agents_hub(node: KubernetesNode) -> str:
    """Say from which hub the image of the agents is."""
    (agent,) = node.read(DAEMONSET, NAMESPACE)["spec"]["template"]["spec"]["containers"]
    return str(agent["image"]).rpartition("/")[0]


def all_in_the_mesh(node: KubernetesNode, names: list[str]) -> None:
    """Wait until each application is available, and answers through its sidecar."""
    for name in names:
        address = url(started(node, name, injected=True))
        until(partial(_is_meshed, node, name, address), 30, f"{name} is in the mesh")


def meaning(node: KubernetesNode) -> dict[str, Any]:
    """Read all files of the plugin's folders; of a conflist its value, as Istio's own agent writes its keys in order."""
    return {
        f"{folder}/{name}": (mode, json.loads(content) if name.endswith(".conflist") else content)
        for folder, files in all_files(node).items()
        for name, (mode, content) in files.items()
    }


def _is_meshed(node: KubernetesNode, name: str, address: str) -> bool:
    with suppress(AssertionError):  # while it is repaired
        return from_node(node, address) == f"{name} {ENVOY}"
    return False


def _image() -> Image:
    """Say what the image of Istio's agent holds: both of its programs, and those that they run."""
    files = netfilter() | {
        "usr/local/bin/install-cni": ISTIO.folder / "install-cni",
        "opt/cni/bin/istio-cni": ISTIO.folder / "istio-cni",
    }
    name = f"{VALUES['hub']}/install-cni:{VALUES['tag']}"
    return Image(name, files, ("/usr/local/bin/install-cni",), "", ("PATH=/usr/local/bin:/usr/sbin:/usr/bin",))
