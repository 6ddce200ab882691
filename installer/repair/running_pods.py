"""The node's mesh pods that run, what is decided of each, and what is known of its redirect."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from installer.repair.sandbox_index import addresses_of
from plugin.decision import decide
from plugin.prefilter import Pass, outside_mesh
from plugin.values import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from plugin.parameters import Defaults
    from plugin.pod import Pod
    from plugin.redirect import Redirect

NAMED = 10  # pods at most in the node's status

Key = tuple[str, str, str]  # a pod's namespace, name and uid


@dataclass
class RunningPod:
    """A mesh pod that runs, or has a sandbox at least.

    Attributes:
        pod: as it is now.
        verdict: how it is to be redirected, or what is wrong with what it asks for.
        first: when it was first seen.
        since: when it was first seen to run.
        redirected: whether a redirect of it has been seen: its ADD was answered with one, or its netns holds one.
        settled: the container id of the sandbox that needs no further look; None: not settled.
        again: before that it is not looked at once more.
        note: what is wrong with it; empty: nothing is, or not for long enough.
        hidden: when its netns was mounted where this process does not see it; 0: it sees it, or does not know.
        observed: the outcome that was told last.
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
    observed: tuple[str, str] = ("", "")

    def settle(self, container_id: str, *, redirected: bool) -> None:
        """Take note that a sandbox needs no further look."""
        self.settled, self.redirected, self.hidden = container_id, redirected, 0.0
        if redirected:
            self.note = ""


class RunningPods:
    """Those of one node; belongs to one event loop."""

    def __init__(
        self, pods: Iterable[Pod], *, excluded: Callable[[], Collection[str]], defaults: Callable[[], Defaults]
    ) -> None:
        """Prepare.

        Args:
            pods: all of the node's, now.
            excluded: the namespaces whose pods are left alone, now.
            defaults: for what pods do not say, now.
        """
        self._pods = pods
        self._excluded = excluded
        self._defaults = defaults
        self._verdicts: dict[Key, tuple[Pod, Redirect | InvalidValue | None]] = {}
        self._running: dict[Key, RunningPod] = {}

    def __iter__(self) -> Iterator[RunningPod]:
        """Go through them as they are now, whatever comes meanwhile."""
        return iter([*self._running.values()])

    @property
    def notes(self) -> list[str]:
        """Those that should be redirected and are not, each with why: the first ten."""
        notes = sorted(each.note for each in self if each.note)
        return [*notes[:NAMED], *([f"and {len(notes) - NAMED} pods more"] if len(notes) > NAMED else [])]

    def decide_anew(self) -> None:
        """Have all be decided about and looked at once more: the settings have changed. What is known of them stays."""
        self._verdicts = {}
        for each in self:
            each.settled, each.again = None, 0.0

    def forget(self) -> None:
        """Forget all."""
        self._running = {}

    async def judge(self) -> None:
        """Decide about those that are new or changed, beside the event loop: a tenant chooses how long that takes (F37)."""
        before, verdicts = self._verdicts, {}
        for pod in self._pods:
            if not pod.is_injected:
                continue
            known = before.get(key_of(pod))
            if known and known[0].ips == pod.ips and known[0].is_decided_like(pod):
                verdict = known[1]
            else:
                verdict = await asyncio.to_thread(self._verdict, pod)
            verdicts[key_of(pod)] = pod, verdict
        self._verdicts = verdicts

    def update(self, now: float, has_sandbox: Callable[[Pod], bool]) -> None:
        """Bring up to date which of them run, or have a sandbox at least.

        Args:
            now: on the loop's clock.
            has_sandbox: whether the runtime keeps one of a pod.
        """
        before, self._running = self._running, {}
        for key, (pod, verdict) in self._verdicts.items():
            if verdict is None or not (pod.running or has_sandbox(pod)):
                continue
            running = self._running[key] = before.get(key) or RunningPod(pod, verdict, now, now)
            running.pod, running.verdict = pod, verdict
            if not pod.running:
                running.since = now

    def _verdict(self, pod: Pod) -> Redirect | InvalidValue | None:
        if outside_mesh(pod.namespace, pod.name, self._excluded(), None):
            return None
        try:
            verdict = decide(pod, tuple(addresses_of(pod)), self._defaults())
        except InvalidValue as error:
            return error
        return None if isinstance(verdict, Pass) else verdict


def key_of(pod: Pod) -> Key:
    """Return what tells a pod from every other."""
    return pod.namespace, pod.name, pod.uid
