"""Whether the container runtime loads the configuration with our entry, by the sandboxes that it has set up since (F23). Pure.

A directory that is there and holds a valid conflist may be one that no runtime reads. What tells is the configuration that
libcni keeps beside each result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from installer.fleet.state import NodeState

LOADED_WITHIN = 5.0  # seconds for the runtime to load what has changed
LONGEST_ADD = 60.0  # seconds: a sandbox whose beginning is unknown began that long before its ADD had succeeded
IN_A_ROW = 2  # sandboxes that tell; one may be another program's doing
NAMED = 3  # pods at most, in a reason


class Setup(NamedTuple):
    """One sandbox: whose, by which network, when it began (seconds since 1970), whether through our entry (None: unknown)."""

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
        self._seen: tuple[Sequence[Setup], float] = (), 0.0  # what has been gone through: there may be thousands
        self._ahead: frozenset[str] = frozenset()  # container ids: begun on a clock that was set back since
        self._without: dict[str, Setup] = {}  # by container id: those since the last that went through our entry

    @property
    def without_entry(self) -> list[Setup]:
        """The sandboxes in a row, up to now, that did not go through our entry though it was in place; the first come first."""
        return sorted(self._without.values(), key=lambda each: each.began)

    def see(self, setups: Sequence[Setup], node: NodeState, written: float | None, now: float) -> None:
        """Take note of what there is.

        Args:
            setups: the node's sandboxes.
            node: what its files are like.
            written: when the file with our entry was last written, in seconds since 1970; None: there is none.
            now: in seconds since 1970.
        """
        if setups is not self._seen[0] or now < self._now:  # else none can be ahead that was not before
            ahead = (each.container_id for each in setups if each.began > now or each.container_id in self._ahead)
            self._ahead = frozenset(ahead)
        self._now = now
        if not node.installed or written is None:
            if self._state:  # until an agent that starts has looked at the files, those of the one before are there
                self._begin(now)
            return
        state = node.conflist, node.form, node.repairs
        before, self._state = self._state, state
        if before not in (None, state):  # what was there for a moment may have been loaded in that
            self._begin(now)
        if self._since > now:  # the clock was set back
            self._begin(now)
        if before is None or self._since < written <= now:
            self._since = min(written, now)  # written by ourselves, as settings changed: what was seen stays true
        if (setups, self._since) == self._seen:
            return
        self._seen = setups, self._since
        comparable = [each for each in setups if each.container_id not in self._ahead]
        told = [each for each in comparable if each.by_entry is not None and each.began > self._since + LOADED_WITHIN]
        self._without |= {each.container_id: each for each in told if not each.by_entry}
        latest = max((each.began for each in comparable if each.by_entry), default=0.0)
        self._without = {key: each for key, each in self._without.items() if each.began > latest}

    def _begin(self, since: float) -> None:
        self._since, self._without = since, {}

    def reason(self, path: str) -> str | None:
        """Say that the runtime does not load our entry, and what to do; None if nothing says so.

        Args:
            path: of the file with our entry, on the node.
        """
        found = self.without_entry
        if len(found) < IN_A_ROW:
            return None
        pods = ", ".join(each.pod for each in found[:NAMED])
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        networks = " and ".join(sorted({each.network or "(no name)" for each in found}))
        return (
            f"the container runtime does not load the plugin's entry in {path}: after it was written there, pods {pods}{more} "
            f"were set up by the network {networks} without it. The runtime reads another directory, or another file first: "
            "set cniConfDir to the directory that it reads (containerd: conf_dir in its CRI plugin's cni section, CRI-O: "
            "network_dir), or the chart's platform; once a new pod is set up through the entry, the node is ready"
        )
