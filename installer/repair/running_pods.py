"""The node's running mesh pods, the verdict on each, and what is known about its redirect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from installer.pods.verdicts import key_of
from plugin.prefilter import Pass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from installer.pods.verdicts import Judged, Key
    from plugin.pod import Pod
    from plugin.redirect import Redirect
    from plugin.values import InvalidValue

NAMED = 10  # pods listed in the node's status


@dataclass
class RunningPod:
    """A mesh pod that runs, or at least has a sandbox.

    Attributes:
        pod: the pod as last observed.
        verdict: its redirect, or why its annotations are invalid.
        first: when it was first observed.
        since: when it was first observed running.
        redirected: whether its ADD was answered with a redirect, or its netns holds one.
        settled: the sandbox that needs no further inspection, as `PodRepair` identifies it; None: not settled.
        trusts_add: whether an ADD that was answered with a redirect settles it, without a look into its netns.
        moved: whether it has another sandbox than before, of which the runtime keeps no record: no ADD is known to be its.
        again: the earliest time of its next inspection.
        note: its problem; empty: none, or not for long enough.
        hidden: when its netns was mounted where this process does not see it; 0: visible or unknown.
        reported: reason and message of the last reported outcome.
        refused: why its last deletion was refused; empty: it was not; None: none was tried.
    """

    pod: Pod
    verdict: Redirect | InvalidValue
    first: float
    since: float
    redirected: bool = False
    settled: str | None = None
    trusts_add: bool = True
    moved: bool = False
    again: float = 0.0
    note: str = ""
    hidden: float = 0.0
    reported: tuple[str, str] = ("", "")
    refused: str | None = None

    def settle(self, sandbox: str, *, redirected: bool) -> None:
        """Record that a sandbox needs no further inspection."""
        self.settled, self.redirected, self.hidden = sandbox, redirected, 0.0
        if redirected:
            self.note = ""


class RunningPods:
    """The running mesh pods of one node; bound to one event loop."""

    def __init__(self) -> None:
        self._running: dict[Key, RunningPod] = {}

    def __iter__(self) -> Iterator[RunningPod]:
        """Iterate over a snapshot of them."""
        return iter([*self._running.values()])

    @property
    def notes(self) -> list[str]:
        """The first ten mesh pods without a redirect, each with the reason."""
        notes = sorted(each.note for each in self if each.note)
        return [*notes[:NAMED], *([f"and {len(notes) - NAMED} pods more"] if len(notes) > NAMED else [])]

    def inspect_again(self, *, whatever_was_added: bool = False) -> None:
        """Schedule an inspection of all of them, as the settings or their netns may have changed; keep their state."""
        for each in self:
            each.settled, each.again = None, 0.0
            each.trusts_add &= not whatever_was_added

    def forget(self) -> None:
        """Forget all."""
        self._running = {}

    def update(self, verdicts: Iterable[Judged], now: float, has_sandbox: Callable[[Pod], bool]) -> None:
        """Update which of them run, or at least have a sandbox.

        `now` is the loop's time; `has_sandbox` returns whether the runtime records a sandbox of a pod.
        """
        before, self._running = self._running, {}
        for pod, _, verdict, _ in verdicts:
            if isinstance(verdict, Pass) or not (pod.running or has_sandbox(pod)):
                continue
            key = key_of(pod)
            running = self._running[key] = before.get(key) or RunningPod(pod, verdict, now, now)
            if not (running.pod.running and pod.running):
                running.since = now
            running.pod, running.verdict = pod, verdict
