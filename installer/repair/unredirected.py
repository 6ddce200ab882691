"""The outcome of a running mesh pod without a redirect, and its message. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from installer.host.cni_cache import Sandbox
    from installer.repair.inspection import Found
    from plugin.values import InvalidValue

WITHOUT = "it runs without its redirect"


class Outcome(NamedTuple):
    """The outcome: the Event's reason, a message for people, and whether it is settled, or waits for its turn."""

    reason: str
    message: str
    settled: bool = True
    waits: bool = False

    @property
    def is_repaired(self) -> bool:
        """Whether it has its redirect now."""
        return self.reason == "Redirected"


def decide_outcome(found: Found, sandbox: Sandbox | None, invalid: InvalidValue | None) -> Outcome | None:
    """Build the outcome of an inspected pod; None: it may be deleted or reported.

    `sandbox` is its latest one on record; `invalid` says what is wrong with the pod's annotations, if anything is.
    """
    why = _explain_missing(found, sandbox)
    if found.repaired:
        message = (
            f"{WITHOUT}{why}; it is redirected now, for {found.written}. Connections from before stay as they are until"
        )
        return Outcome("Redirected", f"{message} they end")
    if found.unknown:
        return Outcome("NotRedirected", f"no redirect has been seen: {found.unknown}", settled=False)
    if found.refused:
        return Outcome("NotRedirected", f"{WITHOUT}{why}, and cannot be redirected now: {found.refused}", settled=False)
    if invalid:
        return Outcome("NotRedirected", f"{WITHOUT}{why}: {invalid}. Correct that, then recreate the pod")
    return None


def report_left(lack: str) -> Outcome:
    """Build the outcome of a pod that is left unchanged; `lack` is what `describe_lack` returns, here and below."""
    return Outcome("NotRedirected", f"{lack}; delete it so that its controller recreates it")


def report_terminating(lack: str) -> Outcome:
    """Build the outcome of a pod that is being deleted already."""
    return Outcome("NotRedirected", f"{lack}, and is being deleted")


def report_deletion(lack: str, refused: str, *, waits: bool = False) -> Outcome:
    """Build the outcome of the latest deletion, or of its failure; a pod that waits for the next one stays as it was."""
    if refused:
        return Outcome("NotRedirected", f"{lack}, and cannot be deleted: {refused}", settled=False, waits=waits)
    return Outcome("Deleted", f"{lack}; deleted so that its controller recreates it")


def report_waiting(lack: str) -> Outcome:
    """Build the outcome of a pod that is deleted for the first time later, as deletions are spaced."""
    return Outcome("NotRedirected", f"{lack}; it is deleted when its turn comes", settled=False, waits=True)


def report_held_back(lack: str) -> Outcome:
    """Build the outcome of a pod that is not deleted because its replacement would lack a redirect too."""
    reason = "its replacement may start without it too, as the container runtime does not load the plugin's entry"
    return Outcome("NotRedirected", f"{lack}, and is not deleted: {reason}", settled=False)


def describe_lack(found: Found, sandbox: Sandbox | None) -> str:
    """Describe what an inspected pod lacks: the redirect of some addresses, or all of it, and why."""
    if found.bypassed:
        return f"its network namespace redirects only a part of its traffic: {found.bypassed}"
    return f"{WITHOUT}{_explain_missing(found, sandbox)}"


def _explain_missing(found: Found, sandbox: Sandbox | None) -> str:
    """Explain why a pod has no redirect, as far as its ADD or its result shows; empty without any."""
    if found.added:
        return ": its network namespace had one when it started, and a process or plugin has taken it away since"
    if sandbox is None or sandbox.has_entry is None:
        return ""
    if sandbox.has_entry:
        return ": its network was set up through the plugin's entry, while it or its namespace was left alone"
    return f": its network {sandbox.network} was set up without the plugin's entry"
