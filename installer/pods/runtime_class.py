"""Runtimes that give a pod its own network stack, so that rules in its netns have no effect (F42). Pure.

gVisor removes the pod's addresses from its interface and sends frames through a packet socket; Kata Containers and Firecracker
pass frames to a virtual machine with tc or macvtap. Neither path traverses the netfilter hooks of the netns. A RuntimeClass
names a handler; the runtime's configuration chooses that name, and all documentation uses the runtime's own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plugin.pod import Pod

# Prefixes of a word in the name of the handler or of the RuntimeClass.
_RUNTIMES = {
    "gvisor": "gVisor",
    "runsc": "gVisor",
    "kata": "Kata Containers",
    "firecracker": "Firecracker",
    "peerpod": "Kata Containers",
}


def own_network_stack(name: str) -> str:
    """Name, for people, the runtime behind a handler or RuntimeClass that has its own network stack; empty for every other."""
    for word in re.split(r"[-.]", name):
        for begins, runtime in _RUNTIMES.items():
            if word.startswith(begins):
                return runtime
    return ""


def without_effect(pod: Pod, runtime: str) -> str:
    """Describe the problem of a mesh pod under such a runtime, and the remedy."""
    return (
        f"its runtime class {pod.runtime_class} runs it with {runtime}, which has a network stack of its own: the redirect in "
        "its network namespace has no effect, and its traffic bypasses the sidecar. Run it with the node's default runtime, "
        "or switch injection off for it"
    )
