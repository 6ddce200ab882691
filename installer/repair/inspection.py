"""Inspecting a running pod's netns for a redirect, and writing one there on request; on a worker thread."""

from __future__ import annotations

import logging
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

_log = logging.getLogger(__name__)


class Inspection(NamedTuple):
    """One inspection of a pod's netns: check the redirect against the plan, and write it if it is missing.

    Without a plan the pod's annotations are invalid.
    """

    known: Known
    plan: Plan | None
    writes: bool


class Found(NamedTuple):
    """The result of an inspection: a redirect; a redirect that was missing and is now written; or why it is unknown.

    `written` says what was written. `bypassed` says which addresses a redirect leaves out that must be redirected: the pod
    counts as unredirected, and its redirect stays as it is, as it would be gone if a replacement failed.
    `refused` says why the redirect could not be written. `hidden` is when the netns was mounted where this
    process does not see it, in seconds since 1970; 0: it is not hidden. `added` is whether its ADD was answered with a
    redirect, which was there then.
    """

    redirected: bool = False
    repaired: bool = False
    written: str = ""
    bypassed: str = ""
    unknown: str = ""
    refused: str = ""
    hidden: float = 0.0
    added: bool = False


def inspect(inspection: Inspection, files: NetnsFiles, capability: Capability) -> Found:
    """Inspect a pod's netns, and redirect its traffic on request; whatever fails is about this pod alone."""
    try:
        with files.proven(inspection.known) as fd:
            return _in_netns(fd, inspection, capability)
    except HiddenError as error:
        return Found(unknown=str(error), hidden=error.since)
    except UnprovenError as error:
        return Found(unknown=f"its network namespace cannot be identified: {error}")
    except (ApplyError, InvalidValue) as error:
        return Found(refused=str(error))
    except OSError as error:
        return Found(unknown=f"its network namespace cannot be opened: {error}")
    except Exception as error:  # noqa: BLE001 - the other pods must go on
        _log.exception("a pod cannot be inspected: this is a bug in the agent")
        return Found(unknown=f"it cannot be inspected: {type(error).__name__}: {error!s:.200}")


def _in_netns(fd: NetnsFd, inspection: Inspection, capability: Capability) -> Found:
    try:
        present = redirected(fd, tuple(Family))
    except ApplyError as error:
        return Found(unknown=str(error))
    if inspection.plan is None or capability.unusable:
        unknown = f"this node redirects no pods: {capability.unusable}" if inspection.writes and not present else ""
        return Found(redirected=bool(present), unknown=unknown)
    if present:
        bypassed = _bypassed(fd, inspection.plan, present)
        return Found(redirected=not bypassed, bypassed=bypassed)
    if not inspection.writes:
        return Found()
    programmed = program(fd, inspection.plan, capability, inhabited=True)
    programmed.free()
    return Found(repaired=True, written=_describe(programmed.settled))


def _bypassed(fd: NetnsFd, plan: Plan, present: Collection[Family]) -> str:
    """Describe what bypasses the sidecar of a pod whose netns redirects only some of the required families."""
    addresses = in_order(plan.prev_addresses, global_addresses(fd))
    families = set(plan.redirect_by(addresses).families) - set(present)
    missed = [each for each in addresses or () if any(each.version == family.version for family in families)]
    return f"{', '.join(map(str, missed))} bypasses its sidecar" if missed else ""


def _describe(settled: Settled) -> str:
    bypassed = (f"{', '.join(map(str, settled.bypassed))} bypasses its sidecar",) if settled.bypassed else ()
    return "; ".join((*settled.notes, *bypassed))
