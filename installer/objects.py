"""What chart, agents, controller and `status` know objects of the cluster by. Pure."""

from __future__ import annotations

DAEMONSET = "istio-cni-node"  # and its ServiceAccount, and whose the fields are that agents write
CONTROLLER = (
    "istio-cni-controller"  # the Deployment and its ServiceAccount, the Lease, and whose the fields are that it writes
)
PARKED = {"cni.istio.io/parked": "true"}  # a node selector that no node fits: parked, the DaemonSet has no pods

NODES = ("cni.istio.io", "v1alpha1", "istiocninodes")  # IstioCNINodes: group, version, plural
REDIRECTING = "Redirecting"  # the reason of their condition Ready where all is well
LONGEST_MESSAGE = 32768  # characters, of a condition of theirs
NODES_KIND, NODES_VERSION = "IstioCNINode", "/".join(NODES[:2])
