"""What runtime and API server report about each pod's netns, combined; `installer.repair.netns_proof` verifies it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from installer.pods.verdicts import addresses_of
from installer.repair.netns_proof import Known
from installer.repair.runtime_check import LONGEST_ADD, Setup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from installer.host.cni_cache import Sandbox
    from installer.repair.netns_proof import NetnsFiles
    from plugin.pod import Pod
    from plugin.values import Address


class Doubt(NamedTuple):
    """Why a pod's netns cannot be searched for."""

    reason: str


class SandboxIndex:
    """The sandboxes of a node at one moment."""

    def __init__(
        self,
        sandboxes: Sequence[Sandbox],
        files: NetnsFiles,
        *,
        was_added: Callable[[str], bool],
        unreadable: Callable[[], Sequence[str]],
    ) -> None:
        """Build the index; slow if there are thousands.

        `was_added` returns whether this agent has answered the ADD of a container id; `unreadable`, the runtime's records
        that do not parse.
        """
        self._files = files
        self._unreadable = unreadable
        self._by_pod: dict[tuple[str, str], list[Sandbox]] = defaultdict(list)
        self._by_netns: dict[str, list[Sandbox]] = defaultdict(list)
        self._latest: dict[Address, Sandbox] = {}
        self.setups: list[Setup] = []
        for each in sorted(sandboxes, key=lambda each: each.written):
            self._by_pod[each.namespace, each.name].append(each)
            self._latest |= dict.fromkeys(each.addresses, each)
            names = self._names(each)
            for name in names:
                self._by_netns[name].append(each)
            began = next(filter(None, map(files.began, names)), each.written - LONGEST_ADD)
            by_entry = True if was_added(each.container_id) else each.has_entry
            self.setups.append(Setup(each.container_id, f"{each.namespace}/{each.name}", each.network, began, by_entry))

    def of(self, pod: Pod) -> Sandbox | None:
        """Return a pod's latest recorded sandbox; one without a uid may be another pod's."""
        recorded = reversed(self._by_pod.get((pod.namespace, pod.name), ()))
        return next((each for each in recorded if _is_of(each, pod)), None)

    def known(self, pod: Pod) -> Known | Doubt:
        """Collect the known facts about a pod's netns, unless they contradict each other."""
        sandbox, reported = self.of(pod), tuple(addresses_of(pod))
        if sandbox is None:
            return Known((), "", reported, self._others(pod), uid=pod.uid) if reported else Doubt(self._nothing_known())
        if not sandbox.uid and not reported:
            return Doubt("the runtime's result does not say which pod of that name it is of")
        if reported and sandbox.addresses and not set(reported) & set(sandbox.addresses):
            seen = f"the runtime's result says {_listed(sandbox.addresses)}, and the API server {_listed(reported)}"
            return Doubt(f"its addresses are not known: {seen}")
        addresses = sandbox.addresses if sandbox.uid and sandbox.addresses else reported
        names = tuple(self._names(sandbox))
        later = next((each for each in map(self._latest.get, addresses) if each and not _is_of(each, pod)), None)
        if later and not names and later.written > sandbox.written:
            return Doubt(f"its address now belongs to pod {later.namespace}/{later.name}")
        others = frozenset() if names else self._others(pod)
        elsewhere = "" if names else sandbox.netns or sandbox.sandbox
        return Known(names, self._files.name_of(sandbox.netns), addresses, others, elsewhere, pod.uid)

    def _others(self, pod: Pod) -> frozenset[str]:
        """List the files that are reported for other pods."""
        return frozenset(
            name for name, sandboxes in self._by_netns.items() if not any(_is_of(each, pod) for each in sandboxes)
        )

    def _names(self, sandbox: Sandbox) -> list[str]:
        return list(dict.fromkeys(filter(None, map(self._files.name_of, (sandbox.netns, sandbox.sandbox)))))

    def _nothing_known(self) -> str:
        unreadable = self._unreadable()
        why = f"; {len(unreadable)} of its results do not parse, such as {unreadable[0]}" if unreadable else ""
        return f"the runtime keeps no result that names it, and the API server no address of it{why}"


def _is_of(sandbox: Sandbox, pod: Pod) -> bool:
    same = (pod.namespace, pod.name) == (sandbox.namespace, sandbox.name)
    return same and (not pod.uid or not sandbox.uid or pod.has_uid(sandbox.uid))


def _listed(addresses: Iterable[Address]) -> str:
    return " and ".join(map(str, addresses))
