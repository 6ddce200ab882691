"""Probing what this node can redirect, and with which backend, in temporary network namespaces (F16)."""

from __future__ import annotations

from plugin import ipv6, netns
from plugin.apply import ApplyError, apply
from plugin.backend import Backend, Capability
from plugin.redirect import Family, Feature, Mode, Redirect


def try_backend(backend: Backend) -> Capability:
    """Redirect an empty netns in every way, which also warms up the backend. Not for the main thread."""
    missing: dict[Feature, str] = {}

    def lacks(feature: Feature, redirect: Redirect) -> bool:
        try:
            with netns.scratch() as fd:
                apply(fd, redirect, backend).free()
        except (ApplyError, OSError) as error:
            missing[feature] = str(error)
        return feature in missing

    if lacks(Feature.NAT, Redirect()):
        return Capability(backend, missing)
    both = (Family.V4, Family.V6)
    if absent := ipv6.absent():
        missing[Feature.IPV6] = absent
    families = both[:1] if absent or lacks(Feature.IPV6, Redirect(families=both)) else both
    lacks(Feature.TPROXY, Redirect(families=families, mode=Mode.TPROXY))
    lacks(Feature.CONNTRACK_ZONES, Redirect(families=families, dns_capture=True))
    lacks(Feature.CONNTRACK_STATE, Redirect(families=families, drop_invalid=True))
    return Capability(backend, missing)
