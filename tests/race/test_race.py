"""A short race: each row has a figure of each contender, and a contender that does nothing is found out."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.bench.calls import PodName
from tests.race.__main__ import race
from tests.race.contenders import OURS, REFERENCE, REFERENCE_NFT, Contender, Pod, verify
from tests.race.rows import Counts, Row
from tests.race.table import markdown, text
from tests.support.netns import Netns

ALL, AGENTS = {OURS, REFERENCE, REFERENCE_NFT}, {OURS, REFERENCE}
EXPECTED = {
    "ADD, mesh pod, IPv4 and IPv6": ALL,
    "ADD, pod outside the mesh": ALL,
    "ADD, excluded namespace": ALL,
    "VERSION": AGENTS,
    "a static program that does nothing, beside VERSION": AGENTS,
    "DEL": AGENTS,
    "2 ADDs at once, each": ALL,
    "2 ADDs at once, the last": ALL,
    "3 ADDs at once, each": ALL,
    "3 ADDs at once, the last": ALL,
    "repair, stomped 0.5 s apart": AGENTS,
    "repair, stomped again after 1/3 s": AGENTS,
    "agent, resident, 3 mesh pods": AGENTS,
    "ADD, its peak resident": ALL,
}


@pytest.mark.apiserver
@pytest.mark.slow
def test_a_short_race_has_a_figure_of_each_contender_in_each_row() -> None:
    counts = Counts(runs=1, bursts=1, repairs=1, frequent=1, together=(2, 3), apart=0.5)
    with TemporaryDirectory(prefix="race-") as folder:
        rows = race(Path(folder), counts, print)
    assert {row.what: {*row.values} for row in rows} == EXPECTED
    assert all(value > 0 for row in rows for values in row.values.values() for value in values)


@pytest.mark.pure
def test_ratios_are_to_the_faster_reference_and_a_missed_target_is_told() -> None:
    row = Row("ADD", {OURS: [3.0], REFERENCE: [100.0], REFERENCE_NFT: [50.0]}, 0.05)
    assert row.ratio == 0.06
    assert row.report()["met"] is False
    for table in (text([row]), markdown([row])):
        assert "0.060" in table
        assert "≤ 0.05, missed" in table


@pytest.mark.kernel
def test_a_plugin_that_does_nothing_is_found_out(tmp_path: Path) -> None:
    idle = Contender("idle", Path("/bin/true"), {}, tmp_path)
    with Netns(tmp_path / "netns") as netns:
        assert idle.call("ADD", Pod(PodName("default", "pod"), {}), netns.path)() > 0
        with pytest.raises(RuntimeError, match=r"idle: saw no redirects to 15001 and 15006 for ip, expected"):
            verify("idle", netns, redirected=True)
        verify("idle", netns, redirected=False)
