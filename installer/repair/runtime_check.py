"""Whether the container runtime loads the configuration with our entry, judged by its later sandboxes (F23). Pure.

A directory with a valid conflist may be one that no runtime reads. The evidence is the configuration that
libcni saves beside each result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from installer.terminal.words import first_few

if TYPE_CHECKING:
    from collections.abc import Sequence

    from installer.fleet.state import NodeState

LOADED_WITHIN = 5.0  # seconds for the runtime to load a change
LONGEST_ADD = 60.0  # seconds: a sandbox of unknown start is assumed to begin that long before its ADD succeeded
IN_A_ROW = 2  # consecutive sandboxes needed as evidence; one may be another program's doing
NAMED = 3  # pods at most, in a reason


class Setup(NamedTuple):
    """One sandbox: its pod, network, start (seconds since 1970), and whether it used our entry (None: unknown)."""

    container_id: str
    pod: str
    network: str
    began: float
    by_entry: bool | None


class RuntimeCheck:
    """Follows the sandboxes of a node."""

    def __init__(self) -> None:
        self._state: tuple[object, ...] | None = None
        self._since = 0.0
        self._now = 0.0
        self._examined: tuple[Sequence[Setup], float] = (), 0.0  # sandboxes already examined: there may be thousands
        self._ahead: frozenset[str] = frozenset()  # container ids of sandboxes begun before the clock was set back
        self._without: dict[str, Setup] = {}  # by container id: those since the last that used our entry

    @property
    def without_entry(self) -> list[Setup]:
        """The latest consecutive sandboxes that did not use our entry though it was in place; oldest first."""
        return sorted(self._without.values(), key=lambda each: each.began)

    def update(self, setups: Sequence[Setup], node: NodeState, written: float | None, now: float) -> None:
        """Record the current sandboxes.

        `written` is when the file with our entry was last written; None: there is none. Times are in seconds since 1970.
        """
        if setups is not self._examined[0] or now < self._now:  # otherwise no further sandbox can be ahead of the clock
            ahead = (each.container_id for each in setups if each.began > now or each.container_id in self._ahead)
            self._ahead = frozenset(ahead)
        self._now = now
        if not node.installed or written is None:
            if self._state:  # before its first pass a new agent finds its predecessor's files
                self._begin(now)
            return
        state = node.conflist, node.form, node.repairs
        before, self._state = self._state, state
        if before not in (None, state):  # a short-lived state may have been loaded meanwhile
            self._begin(now)
        if self._since > now:  # the clock was set back
            self._begin(now)
        if before is None or self._since < written <= now:
            self._since = min(written, now)  # our own write after a change of settings: the evidence stays valid
        if (setups, self._since) == self._examined:
            return
        self._examined = setups, self._since
        comparable = [each for each in setups if each.container_id not in self._ahead]
        loaded = self._since + LOADED_WITHIN
        decisive = [each for each in comparable if each.by_entry is not None and each.began > loaded]
        self._without |= {each.container_id: each for each in decisive if not each.by_entry}
        latest = max((each.began for each in comparable if each.by_entry), default=0.0)
        self._without = {key: each for key, each in self._without.items() if each.began > latest}

    def _begin(self, since: float) -> None:
        self._since, self._without = since, {}

    def reason(self, path: str) -> str | None:
        """Report that the runtime does not load our entry, and the remedy; None without evidence.

        `path` is that of the file with our entry, on the node.
        """
        found = self.without_entry
        if len(found) < IN_A_ROW:
            return None
        pods = first_few([each.pod for each in found], NAMED)
        networks = " and ".join(sorted({each.network or "(no name)" for each in found}))
        return (
            f"the container runtime does not load the plugin's entry in {path}: after it was written there, pods {pods} "
            f"were set up by the network {networks} without it. The runtime reads another directory, or another file first: "
            "set cniConfDir to the directory that it reads (containerd: conf_dir in its CRI plugin's cni section, CRI-O: "
            "network_dir), or the chart's platform; once a new pod is set up through the entry, the node is ready"
        )
