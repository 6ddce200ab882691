"""Programming a pod's netns and looking whether it is as it should be; runs on a worker thread, in milliseconds."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from plugin import ipv6, netns
from plugin.backend import Backend, RefusedError
from plugin.redirect import Family
from plugin.rtnetlink import Ipv6OffError, Rtnetlink
from plugin.rules import ruleset
from plugin.session_iptables import IptablesSession
from plugin.session_replay import ReplaySession

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from plugin.backend import Session
    from plugin.netns import NetnsFd
    from plugin.redirect import Redirect
    from plugin.ruleset import Ruleset

SESSIONS: Mapping[Backend, Callable[[], Session]] = {
    Backend.NFT: ReplaySession,
    Backend.IPTABLES_NFT: partial(IptablesSession, Backend.IPTABLES_NFT),
    Backend.IPTABLES_LEGACY: partial(IptablesSession, Backend.IPTABLES_LEGACY),
}


class ApplyError(Exception):
    """The netns could not be programmed, or read; it is as it was before. The message says what was refused."""


class Applied(NamedTuple):
    """A netns is programmed.

    Attributes:
        free: what is left to do once the runtime has its answer, as it takes longer than all the rest (D4).
        notes: what does not work in this netns although its rules are in place.
    """

    free: Callable[[], None]
    notes: tuple[str, ...] = ()


def apply(fd: NetnsFd, redirect: Redirect, backend: Backend) -> Applied:
    """Make a pod's netns redirect its traffic, all or nothing, and read it back (F17).

    Args:
        fd: the pod's netns.
        redirect: what to redirect.
        backend: by what.

    Raises:
        ApplyError: if a rule was refused or is not there.
    """
    rules = ruleset(redirect)
    try:
        with netns.entered(fd), ExitStack() as undo:
            session = SESSIONS[backend]()
            undo.callback(session.close)
            with Rtnetlink() as kernel:
                notes = _prepare(kernel, rules, undo, redirects_v6=Family.V6 in redirect.families)
            session.replace(rules)
            undo.callback(session.remove, rules)
            if found := _difference(session, rules):
                raise ApplyError(f"the rules were applied, but read back they differ: {found}")
            undo.pop_all()
            return Applied(session.close, notes)
    except (RefusedError, OSError) as error:
        raise ApplyError(f"the rules could not be applied: {error}") from error


def check(fd: NetnsFd, redirect: Redirect, backend: Backend) -> str | None:
    """Look whether a pod's netns holds its redirect.

    Returns:
        The first difference in words, None if there is none.

    Raises:
        ApplyError: if the netns cannot be read.
    """
    try:
        with netns.entered(fd), ExitStack() as stack:
            session = SESSIONS[backend]()
            stack.callback(session.close)
            return _difference(session, ruleset(redirect))
    except RefusedError as error:
        return str(error)
    except OSError as error:
        raise ApplyError(f"the rules could not be read: {error}") from error


def _prepare(kernel: Rtnetlink, rules: Ruleset, undo: ExitStack, *, redirects_v6: bool) -> tuple[str, ...]:
    """Add what the rules need; where IPv6 is off, they are written all the same: nothing may bypass them once it is on."""
    refused = ""
    try:
        if kernel.add_pass_through_address():
            undo.callback(_undone, Rtnetlink.delete_pass_through_address)
    except Ipv6OffError as error:
        refused = str(error)
    for route in rules.routes:
        undo.callback(_undone, partial(Rtnetlink.delete, route=route))
        kernel.add(route)
    if not (redirects_v6 and refused):
        return ()
    return (f"IPv6 does not pass the sidecar until it is on for lo: {ipv6.off() or refused}",)


def _undone(action: Callable[[Rtnetlink], None]) -> None:
    with Rtnetlink() as kernel:
        action(kernel)


def _difference(session: Session, rules: Ruleset) -> str | None:
    if found := session.difference(rules):
        return found
    if not rules.routes:
        return None
    with Rtnetlink() as kernel:
        return next(filter(None, map(kernel.missing, rules.routes)), None)
