"""The conflist of a primary CNI that writes it anew, and how soon an agent has its entry in it again."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PRIMARY = {
    "cniVersion": "1.0.0",
    "name": "k8s",
    "plugins": [
        {"type": "bridge", "bridge": "cni0", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]]}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}
SLOWEST_REPAIR = 30.0  # seconds
BETWEEN_LOOKS = 0.0002


def stomp(conflist: Path) -> int:
    """Write the conflist as the primary CNI does, by rename, and return its inode."""
    temporary = conflist.with_name(".primary")
    temporary.write_text(json.dumps(PRIMARY, indent=2))
    inode = temporary.stat().st_ino
    temporary.replace(conflist)
    return inode


def repair(conflist: Path) -> float:
    """Stomp the conflist: milliseconds from our rename to the agent's.

    Raises:
        RuntimeError: if the plugin's entry does not come back.
    """
    started = time.perf_counter()
    inode = stomp(conflist)
    while conflist.stat().st_ino == inode:
        if time.perf_counter() - started > SLOWEST_REPAIR:
            raise RuntimeError(f"{conflist} was not repaired within {SLOWEST_REPAIR} s")
        time.sleep(BETWEEN_LOOKS)
    taken = (time.perf_counter() - started) * 1000
    types = [each["type"] for each in json.loads(conflist.read_bytes())["plugins"]]
    if "istio-cni" not in types:
        raise RuntimeError(f"{conflist}: saw plugins {types} after its repair, expected istio-cni among them")
    return taken
