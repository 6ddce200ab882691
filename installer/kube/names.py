"""Names of objects that chart, agents, controller and `status` share. Pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import PurePath

DAEMONSET = "istio-cni-node"  # also its ServiceAccount and the field manager of what agents write
CONTROLLER = "istio-cni-controller"  # also its ServiceAccount, the Lease, and the field manager of what it writes
CHARTS_ROLE_BINDING, OWN_ROLE_BINDING = "istio-cni-node-psp", "istio-cni-node-psp-resource"  # of `psp_cluster_role`
PARKED = {"cni.istio.io/parked": "true"}  # a node selector that matches no node: the DaemonSet has no pods while parked

NODES = ("cni.istio.io", "v1alpha1", "istiocninodes")  # IstioCNINodes: group, version, plural
REDIRECTING = "Redirecting"  # the reason of their Ready condition on a healthy node
LONGEST_MESSAGE = 32768  # characters of their conditions
NODES_KIND, NODES_VERSION = "IstioCNINode", "/".join(NODES[:2])


def cleaning_command(node_name: str, image: str, directories: Iterable[str | PurePath]) -> str:
    """Write the command that removes leftovers from a node: the node has no tool of ours, but its kubelet can start one.

    Without `image` the user fills it in. `directories` are former values of cniConfDir and cniBinDir.
    """
    pod = ["kubectl", "debug", f"node/{node_name}", "--profile=general", f"--image={image or 'IMAGE'}"]
    return shlex.join(
        [*pod, "--", "install-cni", "uninstall", "--root=/host", *(f"--from={each}" for each in directories)]
    )


def node_reference(name: str, uid: str) -> dict[str, str]:
    """Refer to a Node, as an owner or as the object of an Event."""
    return {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}
