"""The picture of one pod, as values that `svg` and `dot` render. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from installer.explain.flows import REDIRECTED, Flow, Way, find_flows
from installer.explain.text_metrics import sanitize
from plugin.redirect import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from installer.explain.explain import Explanation
    from installer.explain.flows import Flows
    from plugin.redirect import Redirect

PASSED = Flow("All traffic, unchanged", ("not redirected",), Way.BYPASSED)
FAILED = Flow("No traffic", ("its ADD fails, the pod does not start",), Way.DROPPED)


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact about all traffic of the pod."""

    text: str
    way: Way


@dataclass(frozen=True, slots=True)
class Picture:
    """One pod: `flows` if it is redirected, otherwise `all_traffic` with one flow."""

    namespace: str
    name: str
    verdict: str
    facts: tuple[Fact, ...]
    flows: Flows | None
    all_traffic: Flow
    warnings: tuple[str, ...]

    @property
    def sentences(self) -> Iterator[str]:
        """The whole picture as text."""
        yield f"Pod {self.namespace}/{self.name}, {self.verdict}"
        yield from (fact.text for fact in self.facts)
        if self.flows:
            yield from (f"inbound: {flow}" for flow in self.flows.inbound)
            yield from (f"outbound: {flow}" for flow in self.flows.outbound)
            of_sidecar = (self.flows.own_call, self.flows.arriving, self.flows.leaving)
            yield from (f"from the sidecar: {flow}" for flow in of_sidecar if flow)
        else:
            yield str(self.all_traffic)
        yield from (f"warning: {warning}" for warning in self.warnings)


def build_picture(explanation: Explanation) -> Picture:
    """Make the picture of a pod; names from a file may be any text, and are sanitized here."""
    redirect = explanation.redirect
    return Picture(
        sanitize(explanation.namespace),
        sanitize(f"{explanation.name}{explanation.maker if ', ' in explanation.maker else ''}"),
        sanitize(f"{explanation.decision}: {explanation.reason}"),
        tuple(_facts(redirect, explanation.by_addresses)) if redirect else (),
        find_flows(redirect) if redirect else None,
        PASSED if explanation.decision == "pass" else FAILED,
        tuple(map(sanitize, explanation.warnings)),
    )


def _facts(redirect: Redirect, by_addresses: str) -> Iterator[Fact]:
    kept = ": the client's address is kept" if redirect.mode is Mode.TPROXY else ""
    yield Fact(f"mode {redirect.mode.value}{kept}", Way.THROUGH)
    for family, name in REDIRECTED.items():
        if family in redirect.families:
            yield Fact(f"{name} redirected", Way.THROUGH)
        elif by_addresses:
            yield Fact(f"{name}: depends on the pod's addresses", Way.BYPASSED)
        else:
            yield Fact(f"{name} not redirected", Way.BYPASSED)
