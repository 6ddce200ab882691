"""Runtimes that give a pod a network stack of its own, so that rules in its netns have no effect (F42). Pure.

gVisor takes the pod's addresses off its interface and sends frames by a packet socket; Kata Containers and Firecracker hand
frames over to a virtual machine by tc or macvtap. Neither way passes the netfilter hooks of the netns. A RuntimeClass tells
them by the name of its handler, which the runtime's configuration chooses, and all documentation calls by the runtime's name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plugin.pod import Pod

# How a word of the handler's name, or of the RuntimeClass's own, begins.
_RUNTIMES = {
    "gvisor": "gVisor",
    "runsc": "gVisor",
    "kata": "Kata Containers",
    "firecracker": "Firecracker",
    "peerpod": "Kata Containers",
}


def own_network_stack(name: str) -> str:
    """Name the runtime that a handler, or a RuntimeClass, is called after, if it has a network stack of its own.

    Args:
        name: such as `runsc` or `kata-qemu`.

    Returns:
        The runtime's name for people; empty for every other.
    """
    for word in re.split(r"[-.]", name):
        for begins, runtime in _RUNTIMES.items():
            if word.startswith(begins):
                return runtime
    return ""


def without_effect(pod: Pod, runtime: str) -> str:
    """Say what is wrong with a mesh pod that such a runtime runs, and what helps."""
    return (
        f"its runtime class {pod.runtime_class} runs it by {runtime}, which has a network stack of its own: the redirect in "
        "its network namespace has no effect, and its traffic bypasses the sidecar. Run it with the node's default runtime, "
        "or switch injection off for it"
    )
