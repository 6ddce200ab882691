"""What becomes of a running mesh pod that has no redirect, and what is said of it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from installer.host.cni_cache import Sandbox
    from installer.repair.inspection import Found
    from plugin.values import InvalidValue

WITHOUT = "it runs without its redirect"


class Outcome(NamedTuple):
    """What became of it: in a word, as an Event has it, and for people; whether it is settled."""

    reason: str
    message: str
    settled: bool = True

    @property
    def is_repaired(self) -> bool:
        """Whether it has its redirect now."""
        return self.reason == "Redirected"


def outcome(found: Found, sandbox: Sandbox | None, invalid: InvalidValue | None) -> Outcome | None:
    """Say what became of a pod that was looked into; None: it may be deleted, or named.

    Args:
        found: in its netns.
        sandbox: its latest, as far as the runtime keeps it.
        invalid: what is wrong with what the pod asks for; None: nothing is.
    """
    why = why_without(sandbox)
    if found.repaired:
        said = f"{WITHOUT}{why}; it has it now, for {found.told}. Connections that were open before stay as they are until "
        return Outcome("Redirected", f"{said}they end")
    if found.unknown:
        return Outcome("NotRedirected", f"no redirect of it has been seen: {found.unknown}", settled=False)
    if found.refused:
        return Outcome("NotRedirected", f"{WITHOUT}{why}, and cannot be given it now: {found.refused}", settled=False)
    if invalid:
        return Outcome("NotRedirected", f"{WITHOUT}{why}: {invalid}. Correct that, and let it start anew")
    return None


def left(sandbox: Sandbox | None) -> Outcome:
    """Say that a pod is left as it is."""
    return Outcome("NotRedirected", f"{WITHOUT}{why_without(sandbox)}; delete it, so that it starts anew")


def deleted(sandbox: Sandbox | None, refused: str) -> Outcome:
    """Say that a pod is deleted, or why it is not."""
    if refused:
        said = f"{WITHOUT}{why_without(sandbox)}, and cannot be deleted: {refused}"
        return Outcome("NotRedirected", said, settled=False)
    return Outcome("Deleted", f"{WITHOUT}{why_without(sandbox)}; it is deleted, so that it starts anew")


def held_back(sandbox: Sandbox | None) -> Outcome:
    """Say that a pod is not deleted, as the next one would be no better."""
    said = "the one in its place may start without it too, as the container runtime does not load the plugin's entry"
    return Outcome("NotRedirected", f"{WITHOUT}{why_without(sandbox)}, and is not deleted: {said}", settled=False)


def why_without(sandbox: Sandbox | None) -> str:
    """Say what is known of why a pod has none; nothing is known without its result."""
    if sandbox is None or sandbox.has_entry is None:
        return ""
    if sandbox.has_entry:
        return ": its network was set up through the plugin's entry, while it or its namespace was left alone"
    return f": its network {sandbox.network} was set up without the plugin's entry"
