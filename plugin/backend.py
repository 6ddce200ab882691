"""The backends that program rules, and their capabilities on this node."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from plugin.redirect import Feature

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plugin.redirect import Redirect
    from plugin.ruleset import Ruleset


class Backend(Enum):
    """The backends, in order of preference."""

    NFT = "nft"
    IPTABLES_NFT = "iptables-nft"
    IPTABLES_LEGACY = "iptables-legacy"


class RefusedError(Exception):
    """The kernel or a tool refused rules: its message, and the numbered lines around the failing one."""


class Session(Protocol):
    """A backend in the current thread's netns."""

    def replace(self, rules: Ruleset) -> None:
        """Make the netns hold these rules, all or none, replacing any earlier ones of ours.

        Raises:
            RefusedError: the netns then holds none of our rules, or its earlier ones.
        """

    def remove(self, rules: Ruleset) -> None:
        """Remove our rules; leave others'."""

    def difference(self, rules: Ruleset) -> str | None:
        """Read the netns back and describe the first difference; None if there is none."""

    def close(self) -> None:
        """Release it; idempotent. It can take longer than all the rest: answer the runtime first."""


@dataclass(frozen=True, slots=True)
class Capability:
    """The observed capability of a backend on this node: `missing` maps each missing feature to its reason."""

    backend: Backend
    missing: Mapping[Feature, str] = field(default_factory=dict)

    @property
    def unusable(self) -> str | None:
        """Why it can redirect no pod at all; None if it can."""
        return self.missing.get(Feature.NAT)

    def lacks(self, redirect: Redirect) -> str | None:
        """Describe a feature that a pod's redirect needs and the node lacks; None if there is none."""
        for feature in redirect.features:
            if feature in self.missing:
                return f"this node has no {feature.value} by {self.backend.value}: {self.missing[feature]}"
        return None

    def __str__(self) -> str:
        lacking = "; ".join(f"no {feature.value}: {reason}" for feature, reason in self.missing.items())
        return f"{self.backend.value} ({lacking or 'has all features'})"


def choose(found: Sequence[Capability]) -> Capability:
    """Choose the backend that lacks the fewest features; of equal ones the first."""
    return min(found, key=lambda each: (each.unusable is not None, len(each.missing)))
