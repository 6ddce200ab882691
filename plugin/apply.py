"""Programming a pod's netns and looking whether it is as it should be; runs on a worker thread, in milliseconds."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from plugin import netns
from plugin.backend import Backend, RefusedError
from plugin.redirect import Family
from plugin.rtnetlink import Rtnetlink
from plugin.rules import ruleset
from plugin.session_iptables import IptablesSession
from plugin.session_nft import NftSession

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from plugin.backend import Session
    from plugin.netns import NetnsFd
    from plugin.redirect import Redirect
    from plugin.ruleset import Ruleset

SESSIONS: Mapping[Backend, Callable[[], Session]] = {
    Backend.NFT: NftSession,
    Backend.IPTABLES_NFT: partial(IptablesSession, Backend.IPTABLES_NFT),
    Backend.IPTABLES_LEGACY: partial(IptablesSession, Backend.IPTABLES_LEGACY),
}


class ApplyError(Exception):
    """The netns could not be programmed, or read; it is as it was before. The message says what was refused."""


def apply(fd: NetnsFd, redirect: Redirect, backend: Backend) -> Callable[[], None]:
    """Make a pod's netns redirect its traffic, all or nothing, and read it back (F17).

    Args:
        fd: the pod's netns.
        redirect: what to redirect.
        backend: by what.

    Returns:
        What is left to do once the runtime has its answer, as it takes longer than all the rest (D4).

    Raises:
        ApplyError: if a rule was refused or is not there.
    """
    rules = ruleset(redirect)
    try:
        with netns.entered(fd), ExitStack() as undo:
            session = SESSIONS[backend]()
            undo.callback(session.close)
            with Rtnetlink() as kernel:
                _prepare(kernel, rules, undo, needs_v6=Family.V6 in redirect.families)
            session.replace(rules)
            undo.callback(session.remove, rules)
            if found := _difference(session, rules):
                raise ApplyError(f"the rules were applied, but read back they differ: {found}")
            undo.pop_all()
            return session.close
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


def _prepare(kernel: Rtnetlink, rules: Ruleset, undo: ExitStack, *, needs_v6: bool) -> None:
    added = kernel.add_pass_through_address()
    if added is None and needs_v6:
        raise ApplyError("IPv6 traffic is to be redirected, but IPv6 is off in the pod's netns")
    if added:
        undo.callback(_undone, Rtnetlink.delete_pass_through_address)
    for route in rules.routes:
        undo.callback(_undone, partial(Rtnetlink.delete, route=route))
        kernel.add(route)


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
