"""What chart, agents, controller and `status` know objects of the cluster by. Pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import PurePath

DAEMONSET = "istio-cni-node"  # and its ServiceAccount, and whose the fields are that agents write
CONTROLLER = (
    "istio-cni-controller"  # the Deployment and its ServiceAccount, the Lease, and whose the fields are that it writes
)
CHARTS_ROLE_BINDING, OWN_ROLE_BINDING = "istio-cni-node-psp", "istio-cni-node-psp-resource"  # of `psp_cluster_role`
PARKED = {"cni.istio.io/parked": "true"}  # a node selector that no node fits: parked, the DaemonSet has no pods

NODES = ("cni.istio.io", "v1alpha1", "istiocninodes")  # IstioCNINodes: group, version, plural
REDIRECTING = "Redirecting"  # the reason of their condition Ready where all is well
LONGEST_MESSAGE = 32768  # characters, of a condition of theirs
NODES_KIND, NODES_VERSION = "IstioCNINode", "/".join(NODES[:2])


def cleaning_command(node_name: str, image: str, directories: Iterable[str | PurePath]) -> str:
    """Write the command that takes out what is left on a node: it has no tool of ours, but its kubelet can start one.

    Args:
        node_name: the node.
        image: the agent's; empty: not known.
        directories: those that were cniConfDir or cniBinDir.
    """
    pod = ["kubectl", "debug", f"node/{node_name}", "--profile=general", f"--image={image or 'IMAGE'}"]
    return shlex.join(
        [*pod, "--", "install-cni", "uninstall", "--root=/host", *(f"--from={each}" for each in directories)]
    )
