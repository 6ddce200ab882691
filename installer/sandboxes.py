"""The pods' sandboxes of this node, from what libcni keeps of each ADD that has succeeded: which netns is whose.

libcni writes a file for each network of a pod (its `libcni/api.go`, `cacheAdd`) after the last plugin of the list: a pod that
is in there has been started. Its uid tells it from others that have, or had, its name or its address.
"""

from __future__ import annotations

import ipaddress
import json
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from plugin.values import Address

KIND = "cniCacheV1"
LARGEST = 1 << 20  # bytes of a file: they have a few thousand
INTERFACE = "eth0"  # by which runtimes connect a pod to the cluster; those of other networks are Multus'

_log = logging.getLogger(__name__)


class Sandbox(NamedTuple):
    """A pod's sandbox: whose it is, the file that is its netns, and its addresses in the result's order."""

    namespace: str
    name: str
    uid: str
    netns: Path
    addresses: tuple[Address, ...]


class Sandboxes:
    """Those of the node; each file is read once."""

    def __init__(self, cache: Path, netns: Path) -> None:
        """Prepare.

        Args:
            cache: libcni's folder.
            netns: the folder of the netns files, as this process sees it.
        """
        self._results = cache / "results"
        self._netns = netns
        self._read: dict[str, Sandbox | None] = {}

    def look(self) -> list[Sandbox]:
        """Return those that there are, and of earlier ones those whose files nobody has taken away, as after a reboot.

        Raises:
            OSError: if the folder cannot be read.
        """
        try:
            there = {path.name: path for path in self._results.iterdir()}
        except FileNotFoundError:  # no pod has been started yet
            there = {}
        self._read = {name: sandbox for name, sandbox in self._read.items() if name in there}
        for name in there.keys() - self._read.keys():
            try:
                self._read[name] = _sandbox(_parsed(there[name]), self._netns)
            except (
                OSError,
                ValueError,
                LookupError,
                TypeError,
                AttributeError,
            ) as error:  # being written, or another's
                reason = {"file": str(there[name]), "reason": f"{type(error).__name__}: {error}"}
                _log.debug("what the runtime keeps of a sandbox is not understood", extra=reason)
        return [sandbox for sandbox in self._read.values() if sandbox]


def _parsed(path: Path) -> Mapping[str, Any]:
    with path.open("rb") as file:
        found: Mapping[str, Any] = json.loads(file.read(LARGEST))
        return found


def _sandbox(kept: Mapping[str, Any], netns: Path) -> Sandbox | None:
    if kept["kind"] != KIND or kept["ifName"] != INTERFACE:
        return None
    result, of = kept["result"], dict(kept["cniArgs"])
    inside = [each["sandbox"] for each in result["interfaces"] if each.get("sandbox")]
    addresses = tuple(ipaddress.ip_interface(each["address"]).ip for each in result["ips"])
    file = netns / inside[0].rpartition("/")[2]
    return Sandbox(of["K8S_POD_NAMESPACE"], of["K8S_POD_NAME"], of["K8S_POD_UID"], file, addresses)
