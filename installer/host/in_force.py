"""What is in force on this node: one holder, written by the agent's composition root and read by its parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from installer.fleet.state import NodeState
from plugin.backend import Backend, Capability
from plugin.redirect import Feature

if TYPE_CHECKING:
    from collections.abc import Sequence

    from installer.config.desired import DesiredState
    from installer.config.settings import Settings
    from plugin.decision import Policy


@dataclass
class InForce:
    """What is in force, as it is now.

    Attributes:
        is_known: whether it reflects the cluster: its resources have been read, or there is no cluster.
        capability: the capability of the chosen backend.
        tried: the capability of each backend that was tried.
        state: the state of the node's files.
    """

    desired: DesiredState
    is_known: bool = True
    capability: Capability = field(
        default_factory=lambda: Capability(Backend.NFT, {Feature.NAT: "it is not tried yet"})
    )
    tried: Sequence[Capability] = ()
    state: NodeState = field(default_factory=NodeState)

    @property
    def settings(self) -> Settings:
        """The node's settings."""
        return self.desired.settings

    @property
    def policy(self) -> Policy:
        """The policy on pods."""
        return self.desired.settings.policy
