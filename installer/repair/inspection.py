"""A look into a running pod's netns: whether it holds a redirect, and one written there if that is asked for; on a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from installer.repair.netns_proof import HiddenError, UnprovenError
from plugin.apply import ApplyError
from plugin.detect import global_addresses, redirected
from plugin.families import in_order
from plugin.program import Plan, Settled, program
from plugin.redirect import Family
from plugin.values import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Collection

    from installer.repair.netns_proof import Known, NetnsFiles
    from plugin.backend import Capability
    from plugin.netns import NetnsFd


class Look(NamedTuple):
    """What is done in a pod's netns: looked whether it is redirected as planned, and that written if it has no redirect.

    Without a plan, what the pod asks for does not validate.
    """

    known: Known
    plan: Plan | None
    writes: bool


class Found(NamedTuple):
    """What a look has found: a redirect; or that the netns lacked it, and has it now; or why nobody knows.

    `told` says what was written, or what bypasses it.
    `refused` says why the redirect could not be. `hidden` is when the netns was mounted where this
    process does not see it, in seconds since 1970; 0: it was not that.
    """

    redirected: bool = False
    repaired: bool = False
    told: str = ""
    unknown: str = ""
    refused: str = ""
    hidden: float = 0.0


def looked(look: Look, files: NetnsFiles, capability: Capability) -> Found:
    """Look into a pod's netns, and redirect its traffic if that is asked for."""
    try:
        with files.proven(look.known) as fd:
            return _in_netns(fd, look, capability)
    except HiddenError as error:
        return Found(unknown=str(error), hidden=error.since)
    except UnprovenError as error:
        return Found(unknown=f"its network namespace is not known for certain: {error}")
    except (ApplyError, InvalidValue) as error:
        return Found(refused=str(error))
    except OSError as error:
        return Found(unknown=f"its network namespace cannot be opened: {error}")


def _in_netns(fd: NetnsFd, look: Look, capability: Capability) -> Found:
    try:
        held = redirected(fd, tuple(Family))
    except ApplyError as error:
        return Found(unknown=str(error))
    if look.plan is None or capability.unusable:
        unknown = f"this node redirects no pods: {capability.unusable}" if look.writes and not held else ""
        return Found(redirected=bool(held), unknown=unknown)
    if held:
        bypassed = _bypassed(fd, look.plan, held)
        return Found(redirected=True, told=bypassed)
    if not look.writes:
        return Found()
    done = program(fd, look.plan, capability)
    done.free()
    return Found(repaired=True, told=_told(done.settled))


def _bypassed(fd: NetnsFd, plan: Plan, held: Collection[Family]) -> str:
    """Say what bypasses the sidecar of a pod whose netns redirects some families, and not all that should be."""
    addresses = in_order(plan.said, global_addresses(fd))
    families = set(plan.redirect_by(addresses).families) - set(held)
    missed = [each for each in addresses or () if any(each.version == family.version for family in families)]
    if not missed:
        return ""
    return f"its network namespace does not redirect {', '.join(map(str, missed))}; delete it, so that it starts anew"


def _told(settled: Settled) -> str:
    bypassed = (f"{', '.join(map(str, settled.bypassed))} bypasses its sidecar",) if settled.bypassed else ()
    return "; ".join((*settled.notes, *bypassed))
