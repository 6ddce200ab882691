"""The node's mesh pods that run, the verdict on each, and what is known of its redirect."""

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

NAMED = 10  # pods at most in the node's status


@dataclass
class RunningPod:
    """A mesh pod that runs, or has a sandbox at least.

    Attributes:
        pod: as it is now.
        verdict: how it is to be redirected, or what is wrong with what it asks for.
        first: when it was first seen.
        since: when it was first seen to run.
        redirected: whether a redirect of it has been seen: its ADD was answered with one, or its netns holds one.
        settled: the container id of the sandbox that needs no further inspection; None: not settled.
        again: it is not inspected once more before that.
        note: what is wrong with it; empty: nothing is, or not for long enough.
        hidden: when its netns was mounted where this process does not see it; 0: it sees it, or does not know.
        reported: reason and message of the outcome that was reported last.
    """

    pod: Pod
    verdict: Redirect | InvalidValue
    first: float
    since: float
    redirected: bool = False
    settled: str | None = None
    again: float = 0.0
    note: str = ""
    hidden: float = 0.0
    reported: tuple[str, str] = ("", "")

    def settle(self, container_id: str, *, redirected: bool) -> None:
        """Take note that a sandbox needs no further inspection."""
        self.settled, self.redirected, self.hidden = container_id, redirected, 0.0
        if redirected:
            self.note = ""


class RunningPods:
    """The running mesh pods of one node; belongs to one event loop."""

    def __init__(self) -> None:
        self._running: dict[Key, RunningPod] = {}

    def __iter__(self) -> Iterator[RunningPod]:
        """Go through them as they are now, whatever comes meanwhile."""
        return iter([*self._running.values()])

    @property
    def notes(self) -> list[str]:
        """Those that should be redirected and are not, each with why: the first ten."""
        notes = sorted(each.note for each in self if each.note)
        return [*notes[:NAMED], *([f"and {len(notes) - NAMED} pods more"] if len(notes) > NAMED else [])]

    def inspect_again(self) -> None:
        """Have all inspected once more: the settings have changed. What is known of them stays."""
        for each in self:
            each.settled, each.again = None, 0.0

    def forget(self) -> None:
        """Forget all."""
        self._running = {}

    def update(self, verdicts: Iterable[Judged], now: float, has_sandbox: Callable[[Pod], bool]) -> None:
        """Bring up to date which of them run, or have a sandbox at least.

        Args:
            verdicts: those on the node's mesh pods.
            now: on the loop's clock.
            has_sandbox: whether the runtime keeps one of a pod.
        """
        before, self._running = self._running, {}
        for pod, _, verdict, _ in verdicts:
            if isinstance(verdict, Pass) or not (pod.running or has_sandbox(pod)):
                continue
            key = key_of(pod)
            running = self._running[key] = before.get(key) or RunningPod(pod, verdict, now, now)
            running.pod, running.verdict = pod, verdict
            if not pod.running:
                running.since = now
