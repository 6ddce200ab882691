"""What is in force on this node: one holder, which the agent's composition root writes and its parts read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from installer.config.policy import policy
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
        desired: what the node is to be like.
        is_known: whether that is what the cluster asks for: its resources have been read, or there are none to read.
        capability: what the backend can do that redirects pods.
        tried: what each backend can do that was tried.
        state: what the node's files are like.
    """

    desired: DesiredState
    is_known: bool = True
    capability: Capability = field(
        default_factory=lambda: Capability(Backend.NFT, {Feature.NAT: "it is not tried yet"})
    )
    tried: Sequence[Capability] = ()
    state: NodeState = field(default_factory=NodeState)
    _policy: tuple[Settings, Policy] | None = field(default=None, init=False, repr=False)

    @property
    def settings(self) -> Settings:
        """The node's settings."""
        return self.desired.settings

    @property
    def policy(self) -> Policy:
        """What they say about pods; the same object as long as the settings are: each request asks for it."""
        settings = self.desired.settings
        if self._policy is None or self._policy[0] is not settings:
            self._policy = settings, policy(settings)
        return self._policy[1]
