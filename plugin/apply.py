"""Programming a pod's netns and looking whether it is as it should be; runs on a worker thread, in milliseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plugin import netns, nft
from plugin.libnftables import Context, NftError
from plugin.loopback import add_pass_through_address
from plugin.redirect import Family, Redirect
from plugin.ruleset import ruleset

if TYPE_CHECKING:
    from collections.abc import Callable

    from plugin.netns import NetnsFd


class ApplyError(Exception):
    """The netns could not be programmed, or read; it is as it was before. The message says what was refused."""


def apply(fd: NetnsFd, redirect: Redirect) -> Callable[[], None]:
    """Make a pod's netns redirect its traffic, in one transaction, and read it back (F17).

    Args:
        fd: the pod's netns.
        redirect: what to redirect.

    Returns:
        What is left to do once the runtime has its answer, as it takes longer than all the rest (D4).

    Raises:
        ApplyError: if a rule was refused or is not there.
    """
    rules = ruleset(redirect)
    try:
        with netns.entered(fd):
            if not add_pass_through_address() and Family.V6 in redirect.families:
                raise ApplyError("the pod has an IPv6 address to redirect, but IPv6 is off in its netns")
            context = Context()
            try:
                context.run(nft.transaction(rules))
                seen = _read_back(context, redirect)
            except BaseException:
                context.close()
                raise
    except (NftError, OSError) as error:
        raise ApplyError(f"the rules could not be applied: {error}") from error
    if found := nft.difference(nft.listing(rules), seen):
        context.close()
        raise ApplyError(f"the rules were applied, but read back they differ: {found}")
    return context.close


def check(fd: NetnsFd, redirect: Redirect) -> str | None:
    """Look whether a pod's netns holds its redirect.

    Returns:
        The first difference in words, None if there is none.

    Raises:
        ApplyError: if the netns cannot be read.
    """
    try:
        with netns.entered(fd):
            context = Context()
            try:
                seen = _read_back(context, redirect)
            finally:
                context.close()
    except NftError as error:
        return str(error)
    except OSError as error:
        raise ApplyError(f"the rules could not be read: {error}") from error
    return nft.difference(nft.listing(ruleset(redirect)), seen)


def _read_back(context: Context, redirect: Redirect) -> str:
    return "".join(context.run(nft.list_command(family)) for family in redirect.families)
