"""Programming and checking a pod's netns; runs on a worker thread, in milliseconds."""

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
INHABITED: Mapping[Backend, Callable[[], Session]] = {**SESSIONS, Backend.NFT: partial(ReplaySession, inhabited=True)}


class ApplyError(Exception):
    """The netns could not be programmed or read, and is unchanged. The message says what was refused."""


class LoDownError(Exception):
    """The runtime has not set `lo` up yet; the netns is unchanged."""


class Applied(NamedTuple):
    """A programmed netns.

    Attributes:
        free: slow clean-up to run after the answer to the runtime, as it takes longer than all the rest (D4).
        notes: what does not work in this netns in spite of its rules.
    """

    free: Callable[[], None]
    notes: tuple[str, ...] = ()


def apply(
    fd: NetnsFd, redirect: Redirect, backend: Backend, *, inhabited: bool = False, needs_lo: bool = False
) -> Applied:
    """Make a pod's netns redirect its traffic, all or nothing, and read it back (F17).

    Args:
        fd: the pod's netns.
        redirect: the redirect.
        backend: the backend to use.
        inhabited: whether processes of the pod may run in the netns; none does at its ADD.
        needs_lo: whether `lo` has to be up before anything is changed.

    Raises:
        ApplyError: if a rule was refused or is missing.
        LoDownError: if `lo` is down and must not be.
    """
    rules = ruleset(redirect)
    try:
        with netns.entered(fd), ExitStack() as undo:
            session = (INHABITED if inhabited else SESSIONS)[backend]()
            undo.callback(session.close)
            with Rtnetlink() as kernel:
                if needs_lo and not kernel.is_lo_up:
                    raise LoDownError
                notes = _prepare(kernel, rules, undo, redirects_v6=Family.V6 in redirect.families)
            session.replace(rules)
            undo.callback(session.remove, rules)
            if found := _difference(session, rules):
                raise ApplyError(f"the rules were applied, but read back they differ: {found}")
            undo.pop_all()
            return Applied(session.close, notes)
    except (RefusedError, OSError) as error:
        raise ApplyError(f"the rules could not be applied: {error}") from error


def is_lo_up(fd: NetnsFd) -> bool:
    """Whether `lo` of a netns is up."""
    with netns.entered(fd), Rtnetlink() as kernel:
        return kernel.is_lo_up


def check(fd: NetnsFd, redirect: Redirect, backend: Backend) -> str | None:
    """Compare a pod's netns with its redirect.

    Returns:
        The first difference in words; None if there is none.

    Raises:
        ApplyError: if the netns cannot be read.
    """
    try:
        with netns.entered(fd), ExitStack() as stack:
            session = INHABITED[backend]()
            stack.callback(session.close)
            return _difference(session, ruleset(redirect))
    except RefusedError as error:
        return str(error)
    except OSError as error:
        raise ApplyError(f"the rules could not be read: {error}") from error


def _prepare(kernel: Rtnetlink, rules: Ruleset, undo: ExitStack, *, redirects_v6: bool) -> tuple[str, ...]:
    """Add the routes and addresses that the rules need; rules are written even while IPv6 is off, lest traffic bypass later."""
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
