"""The picture of one pod, as values; `svg` and `dot` draw it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from installer.explain.text_metrics import clean
from installer.explain.traffic import REDIRECTED, Path, Way, paths_of
from plugin.redirect import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from installer.explain.explain import Explanation
    from installer.explain.traffic import Paths
    from plugin.redirect import Redirect

PASSED = Path("All traffic, as it is", ("not redirected",), Way.ROUND)
FAILED = Path("No traffic", ("its ADD fails, the pod does not start",), Way.DROPPED)


@dataclass(frozen=True, slots=True)
class Fact:
    """What holds for all traffic of the pod."""

    text: str
    way: Way


@dataclass(frozen=True, slots=True)
class Picture:
    """One pod: `paths` if it is redirected, and if it is not, `all_traffic`, which has one path then."""

    namespace: str
    name: str
    verdict: str
    facts: tuple[Fact, ...]
    paths: Paths | None
    all_traffic: Path
    warnings: tuple[str, ...]

    @property
    def sentences(self) -> Iterator[str]:
        """The whole picture in words."""
        yield f"Pod {self.namespace}/{self.name}, {self.verdict}"
        yield from (fact.text for fact in self.facts)
        if self.paths:
            yield from (f"inbound: {path}" for path in self.paths.inbound)
            yield from (f"outbound: {path}" for path in self.paths.outbound)
            of_sidecar = (self.paths.own_call, self.paths.arriving, self.paths.leaving)
            yield from (f"from the sidecar: {path}" for path in of_sidecar if path)
        else:
            yield str(self.all_traffic)
        yield from (f"warning: {warning}" for warning in self.warnings)


def picture(explained: Explanation) -> Picture:
    """Make the picture of a pod; what a file says of names may be any text, and is made harmless here."""
    redirect = explained.redirect
    return Picture(
        clean(explained.namespace),
        clean(f"{explained.name}{explained.maker if ', ' in explained.maker else ''}"),
        clean(f"{explained.decision}: {explained.reason}"),
        tuple(_facts(redirect, explained.by_addresses)) if redirect else (),
        paths_of(redirect) if redirect else None,
        PASSED if explained.decision == "pass" else FAILED,
        tuple(map(clean, explained.warnings)),
    )


def _facts(redirect: Redirect, by_addresses: str) -> Iterator[Fact]:
    kept = ": the client's address is kept" if redirect.mode is Mode.TPROXY else ""
    yield Fact(f"mode {redirect.mode.value}{kept}", Way.THROUGH)
    for family, name in REDIRECTED.items():
        if family in redirect.families:
            yield Fact(f"{name} redirected", Way.THROUGH)
        elif by_addresses:
            yield Fact(f"{name}: depends on the pod's addresses", Way.ROUND)
        else:
            yield Fact(f"{name} not redirected", Way.ROUND)
