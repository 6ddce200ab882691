"""Through what the rules reach the kernel, and what it can do on this node."""

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
    """What programs the rules, in the order of preference."""

    NFT = "nft"
    IPTABLES_NFT = "iptables-nft"
    IPTABLES_LEGACY = "iptables-legacy"


class RefusedError(Exception):
    """The kernel or a tool refused rules: what it said, and the numbered lines around the one that failed."""


class Session(Protocol):
    """A backend at work in the netns that this thread is in."""

    def replace(self, rules: Ruleset) -> None:
        """Make the netns hold these rules, all or none, whatever of ours it held before.

        Raises:
            RefusedError: then it holds none of ours, or what it held before.
        """

    def remove(self, rules: Ruleset) -> None:
        """Take them out; others' stay."""

    def difference(self, rules: Ruleset) -> str | None:
        """Read the netns back and name the first difference in words; None if there is none."""

    def close(self) -> None:
        """Let go of it; may be called again. It can take longer than all the rest: answer before."""


@dataclass(frozen=True, slots=True)
class Capability:
    """What a backend was seen to do on this node: it lacks the features in `missing`, each for a reason in words."""

    backend: Backend
    missing: Mapping[Feature, str] = field(default_factory=dict)

    @property
    def unusable(self) -> str | None:
        """Why it can redirect no pod at all; None if it can."""
        return self.missing.get(Feature.NAT)

    def lacks(self, redirect: Redirect) -> str | None:
        """Say what a pod's redirect asks for and is not there; None if all is."""
        for feature in redirect.features:
            if feature in self.missing:
                return f"this node has no {feature.value} by {self.backend.value}: {self.missing[feature]}"
        return None

    def __str__(self) -> str:
        lacking = "; ".join(f"no {feature.value}: {reason}" for feature, reason in self.missing.items())
        return f"{self.backend.value} ({lacking or 'has all features'})"


def choose(found: Sequence[Capability]) -> Capability:
    """Choose among what was tried, in the order of preference: the first of those that lack least."""
    return min(found, key=lambda each: (each.unusable is not None, len(each.missing)))
