"""What is measured, row by row, and what of it is compared with a target."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.bench.calls import at_once, call_for_version, in_turns, percentile
from tests.bench.conflist import repair
from tests.race.contenders import OURS
from tests.race.stage import EXCLUDED
from tests.support.images import compiled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.race.contenders import Pod
    from tests.race.stage import Stage

MIB = 2**20


@dataclass(frozen=True)
class Counts:
    """How often each thing is done; the quick test does less of all.

    Attributes:
        runs: calls of each kind.
        together: the sizes of the bursts; the largest is the number of mesh pods on the node.
        bursts: of each size.
        repairs: of a conflist that is stomped now and then, `apart` seconds from repair to stomp.
        frequent: of one that is stomped a third of a second after its repair.
    """

    runs: int
    bursts: int
    repairs: int
    frequent: int
    together: Sequence[int] = (50, 110)
    apart: float = 6.0

    @classmethod
    def of(cls, runs: int) -> Counts:
        """All counts, for so many calls of each kind."""
        return cls(runs, math.ceil(runs / 20), math.ceil(runs / 4), math.ceil(runs / 2))


@dataclass(frozen=True)
class Row:
    """Measurements by contender.

    Attributes:
        what: in words.
        values: by contender: milliseconds, or MiB.
        target: the largest ratio, ours to the faster of the others; None for none.
        percent: the percentile that is compared.
        unit: of the values.
    """

    what: str
    values: Mapping[str, Sequence[float]]
    target: float | None = None
    percent: float = field(default=50, kw_only=True)
    unit: str = field(default="ms", kw_only=True)

    def figure(self, name: str, percent: float | None = None) -> float | None:
        """A percentile of a contender's values, by default that which is compared; None if it has none."""
        found = self.values.get(name)
        return percentile(found, self.percent if percent is None else percent) if found else None

    @property
    def ratio(self) -> float:
        """Ours to the faster of the others."""
        return percentile(self.values[OURS], self.percent) / min(
            percentile(found, self.percent) for name, found in self.values.items() if name != OURS
        )

    @property
    def is_met(self) -> bool | None:
        """Whether the target is; None where there is none."""
        return None if self.target is None else self.ratio <= self.target

    def report(self) -> dict[str, Any]:
        """For the JSON file."""
        figures = {
            name: {"values": len(found)}
            | {f"p{percent} {self.unit}": round(percentile(found, percent), 2) for percent in (50, 99)}
            for name, found in self.values.items()
        }
        compared = {"compared": f"p{self.percent:g}", "ratio": round(self.ratio, 4)}
        return {"what": self.what, "measured": figures} | compared | {"target": self.target, "met": self.is_met}


def measure(stage: Stage, counts: Counts) -> Iterator[Row]:
    """Measure all, in turns; what is not right stops it (RuntimeError)."""
    _warm_up(stage)
    yield from _calls(stage, counts)
    for size in counts.together:
        yield from _together(stage, size, counts.bursts)
    yield from _repairs(stage, counts)
    yield from _memory(stage)


def _warm_up(stage: Stage) -> None:
    with stage.calls("ADD", stage.meshed[:1], redirected=True) as rounds:
        in_turns(rounds)


def _calls(stage: Stage, counts: Counts) -> Iterator[Row]:
    names = [each.name for each in stage.contenders]
    meshed = [*itertools.islice(itertools.cycle(stage.meshed), counts.runs)]
    for what, pods, redirected, target in (
        ("ADD, mesh pod, IPv4 and IPv6", meshed, True, 0.04),
        ("ADD, pod outside the mesh", [stage.plain] * counts.runs, False, 0.03),
        ("ADD, excluded namespace", [EXCLUDED] * counts.runs, False, 0.03),
    ):
        with stage.calls("ADD", pods, redirected=redirected) as rounds:
            times = in_turns(rounds)
        yield Row(what, dict(zip(names, times, strict=True)), target)
    backendless = stage.contenders[:2]  # VERSION and DEL write no rules
    files = [*(each.executable for each in backendless), compiled("nothing")]
    *versions, floor = in_turns([[call_for_version(file, stage.folder) for file in files]] * counts.runs)
    yield Row("VERSION", dict(zip(names, versions, strict=False)), 0.02)
    yield Row("a static program that does nothing, beside VERSION", {names[0]: floor, names[1]: versions[1]})
    with stage.calls("DEL", meshed, backendless) as rounds:
        times = in_turns(rounds)
    yield Row("DEL", dict(zip(names, times, strict=False)), 0.02)


def _together(stage: Stage, size: int, bursts: int) -> Iterator[Row]:
    each: dict[str, list[float]] = {contender.name: [] for contender in stage.contenders}
    last: dict[str, list[float]] = {contender.name: [] for contender in stage.contenders}
    for _ in range(bursts):
        for contender in stage.contenders:
            with stage.calls("ADD", stage.meshed[:size], [contender], redirected=True) as rounds:
                ends = at_once([call for (call,) in rounds])
            each[contender.name] += ends
            last[contender.name].append(ends[-1])
    yield Row(f"{size} ADDs at once, each", each, 0.03, percent=99)
    yield Row(f"{size} ADDs at once, the last", last)


def _repairs(stage: Stage, counts: Counts) -> Iterator[Row]:
    conflists = stage.conflists
    times: dict[str, list[float]] = {name: [] for name in conflists}
    for _ in range(counts.repairs):
        time.sleep(counts.apart)
        for name, conflist in conflists.items():
            times[name].append(repair(conflist))
    yield Row(f"repair, stomped {counts.apart:g} s apart", times, 0.05, percent=99)
    frequent: dict[str, list[float]] = {name: [] for name in conflists}
    for (
        name,
        conflist,
    ) in conflists.items():  # one after the other, as the slower one's repair would be a pause for the other
        for _ in range(counts.frequent):
            time.sleep(1 / 3)
            frequent[name].append(repair(conflist))
    yield Row("repair, stomped again after 1/3 s", frequent, 0.05, percent=99)


def _memory(stage: Stage) -> Iterator[Row]:
    resident = {name: [agent.rss() / MIB] for name, agent in stage.agents.items()}
    yield Row(f"agent, resident, {len(stage.meshed)} mesh pods", resident, 0.9, unit="MiB")
    pod: Pod = stage.meshed[0]
    with stage.calls("ADD", [pod], redirected=True) as ((*calls,),):
        peaks = [call.peak(stage.folder) for call in calls]
    names = [each.name for each in stage.contenders]
    yield Row("ADD, its peak resident", {name: [peak] for name, peak in zip(names, peaks, strict=True)}, unit="MiB")
