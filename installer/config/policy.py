"""The policy on pods that a node's settings make. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plugin.decision import Policy
from plugin.parameters import Defaults

if TYPE_CHECKING:
    from installer.config.settings import Settings


def policy(settings: Settings) -> Policy:
    """Return the policy that these settings make."""
    return Policy(settings.exclude_namespaces, Defaults(settings.inbound_ports_default, settings.ipv6))
