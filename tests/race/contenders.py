"""Who runs: each plugin as its agent has installed it, with the entry that this agent has written."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.bench.calls import PodName, call_for_pod, write_config

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.bench.calls import Call
    from tests.support.netns import Netns

OURS, REFERENCE, REFERENCE_NFT = "ours", "reference", "reference, nft"
ANNOTATIONS = "io.kubernetes.cri.pod-annotations"  # the capability by which containerd hands them over

PORTS = ("15001", "15006")  # of the sidecar, for what goes out and what comes in

_TABLE = re.compile(r"^table (ip6?|inet) .*?^}", re.MULTILINE | re.DOTALL)
_REDIRECT = re.compile(r"(?:redirect to :|REDIRECT --to-ports )(\d+)")
_SAVE = {"ip": "/usr/sbin/iptables-save", "ip6": "/usr/sbin/ip6tables-save"}


@dataclass(frozen=True)
class Pod:
    """A pod as the runtime knows it."""

    name: PodName
    annotations: Mapping[str, str]


@dataclass(frozen=True)
class Contender:
    """A plugin file and its entry in the conflist.

    Attributes:
        name: the column of the table.
        executable: the plugin file.
        entry: what its agent has written into the conflist.
        folder: for what is written for its calls.
    """

    name: str
    executable: Path
    entry: Mapping[str, Any]
    folder: Path

    def call(self, command: str, pod: Pod, netns: Path) -> Call:
        """Make a runtime's call for a pod; libcni hands over what the entry says that the plugin is capable of."""
        given = {ANNOTATIONS: dict(pod.annotations) or None}
        known = {key: value for key, value in given.items() if self.entry.get("capabilities", {}).get(key)}
        entry = dict(self.entry) | ({"runtimeConfig": known} if known else {})
        path = self.folder / f"{self.name}-{pod.name.namespace}-{pod.name.name}.stdin"
        return call_for_pod(self.executable, command, pod.name, netns, write_config(path, entry))


def installed(conflist: Path) -> dict[str, Any]:
    """Return the plugin's entry in a conflist; empty if it has none."""
    plugins = json.loads(conflist.read_bytes())["plugins"]
    return next((each for each in plugins if each["type"] == "istio-cni"), {})


def verify(who: str, netns: Netns, *, redirected: bool) -> None:
    """Look whether a pod's netns has what it should: redirects in and out, of both families, or no rule at all.

    Raises:
        RuntimeError: if it has not: then nothing was measured.
    """
    rules = netns.rules()
    if not redirected:
        if rules.strip():
            raise RuntimeError(
                f"{who}: saw rules in the netns of a pod that is not redirected, expected none:\n{rules}"
            )
        return
    for family, program in _SAVE.items():
        own = "".join(table[0] for table in _TABLE.finditer(rules) if table[1] in (family, "inet"))
        if not _redirects(own):  # those of iptables are not always shown by nft
            command = [*netns.entered, program, "-t", "nat"]
            own = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        if not _redirects(own):
            raise RuntimeError(
                f"{who}: saw no redirects to {' and '.join(PORTS)} for {family}, expected them after an ADD:\n{rules}"
            )


def _redirects(rules: str) -> bool:
    return {*_REDIRECT.findall(rules)}.issuperset(PORTS)
