"""Applying a decided redirect in a pod's netns, whose actual addresses take precedence (F38).

Runs on a worker thread, like `plugin.apply`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from plugin import apply as netns_rules
from plugin.apply import ApplyError
from plugin.detect import global_addresses
from plugin.families import in_order, is_due, why
from plugin.redirect import Family, Feature, Redirect
from plugin.values import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable

    from plugin.backend import Capability
    from plugin.decision import Verdict
    from plugin.netns import NetnsFd
    from plugin.parameters import Ipv6
    from plugin.values import Address


class Plan(NamedTuple):
    """A redirect, as far as it can be decided outside the netns.

    Attributes:
        redirect: decided from `said`.
        prev_addresses: prevResult's addresses, in its order.
        decide: returns the verdict for other addresses; None: none are known.
        ipv6: the agent's setting.
    """

    redirect: Redirect
    prev_addresses: tuple[Address, ...]
    decide: Callable[[tuple[Address, ...] | None], Verdict]
    ipv6: Ipv6

    def redirect_by(self, addresses: tuple[Address, ...] | None) -> Redirect:
        """Return the redirect for other addresses, which do not affect whether there is one.

        Raises:
            InvalidValue: if the pod needs too many rules in the families of these addresses.
        """
        verdict = self.decide(addresses)
        if isinstance(verdict, InvalidValue):
            raise verdict
        return verdict if isinstance(verdict, Redirect) else self.redirect


class Settled(NamedTuple):
    """A redirect for the actual addresses of the netns.

    Attributes:
        redirect: the redirect to write.
        bypassed: the pod's addresses whose traffic bypasses its sidecar.
        notes: which families are redirected and why, and other remarks.
        ipv6_off: whether IPv6 is off in the netns, so that it does not work through the sidecar.
    """

    redirect: Redirect
    bypassed: tuple[Address, ...]
    notes: tuple[str, ...]
    ipv6_off: bool = False


class Programmed(NamedTuple):
    """What was written, and the clean-up to run after the answer to the runtime."""

    settled: Settled
    free: Callable[[], None]


def program(
    fd: NetnsFd, plan: Plan, capability: Capability, *, inhabited: bool = False, needs_lo: bool = False
) -> Programmed:
    """Redirect a pod's traffic, as `plugin.apply.apply` does, in the families that its netns requires.

    Raises:
        ApplyError: if a required rule cannot be written.
        InvalidValue: if the pod needs too many rules in these families.
        LoDownError: if `lo` is down and must not be.
    """
    settled = settle(fd, plan, capability)
    applied = netns_rules.apply(fd, settled.redirect, capability.backend, inhabited=inhabited, needs_lo=needs_lo)
    notes, ipv6_off = (*settled.notes, *applied.notes), bool(applied.notes)
    return Programmed(settled._replace(notes=notes, ipv6_off=ipv6_off), applied.free)


def check(fd: NetnsFd, plan: Plan, capability: Capability) -> str | None:
    """Describe the first difference between a netns and its pod's redirect; errors as for `program`."""
    return netns_rules.check(fd, settle(fd, plan, capability).redirect, capability.backend)


def settle(fd: NetnsFd, plan: Plan, capability: Capability) -> Settled:
    """Decide with the addresses of the netns; errors as for `program`.

    They are read only if they can change the result: IPv6 is not redirected, or not known to be required.
    """
    redirect, addresses = plan.redirect, plan.prev_addresses or None
    if Family.V6 not in redirect.families or not is_due(addresses, plan.ipv6):
        addresses = in_order(plan.prev_addresses, global_addresses(fd))
        if addresses != plan.prev_addresses:
            redirect = plan.redirect_by(addresses)
    notes = why(redirect, addresses, plan.ipv6)
    lacks_v6 = capability.missing.get(Feature.IPV6)
    if Family.V6 in redirect.families and lacks_v6 and not is_due(addresses, plan.ipv6):
        redirect = replace(redirect, families=(Family.V4,))
        notes = f"IPv4; IPv6, of which it has no address now, cannot be redirected on this node: {lacks_v6}"
    if lacking := capability.lacks(redirect):
        raise ApplyError(f"the pod cannot be redirected as it asks for: {lacking}")
    return Settled(redirect, redirect.bypassing(addresses or ()), (notes,))
