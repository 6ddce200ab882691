"""A look into a running pod's netns: whether it holds a redirect, and one written there if that is asked for; on a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from installer.netnsproof import HiddenError, UnprovenError
from plugin.apply import ApplyError, apply
from plugin.detect import holds_redirect

if TYPE_CHECKING:
    from installer.netnsproof import Known, NetnsFiles
    from plugin.backend import Capability
    from plugin.redirect import Family, Redirect


class Look(NamedTuple):
    """What is done in a pod's netns: looked for a redirect of these families, and `write` put there if it has none."""

    known: Known
    families: tuple[Family, ...]
    write: Redirect | None


class Found(NamedTuple):
    """What a look has found: a redirect; or that the netns lacked it, and has it now; or why nobody knows.

    `refused` says why the redirect could not be written. `hidden` is when the netns was mounted where this process does not
    see it, in seconds since 1970; 0: it was not that.
    """

    redirected: bool = False
    repaired: bool = False
    unknown: str = ""
    refused: str = ""
    hidden: float = 0.0


def looked(look: Look, files: NetnsFiles, capability: Capability) -> Found:
    """Look into a pod's netns, and redirect its traffic if that is asked for."""
    try:
        with files.proven(look.known) as fd:
            try:
                if holds_redirect(fd, look.families):
                    return Found(redirected=True)
            except ApplyError as error:
                return Found(unknown=str(error))
            if look.write is None:
                return Found()
            if capability.unusable:
                return Found(unknown=f"this node redirects no pods: {capability.unusable}")
            if lacking := capability.lacks(look.write):
                return Found(refused=lacking)
            apply(fd, look.write, capability.backend)()
            return Found(repaired=True)
    except HiddenError as error:
        return Found(unknown=str(error), hidden=error.since)
    except UnprovenError as error:
        return Found(unknown=f"its network namespace is not known for certain: {error}")
    except ApplyError as error:
        return Found(refused=str(error))
    except OSError as error:
        return Found(unknown=f"its network namespace cannot be opened: {error}")
