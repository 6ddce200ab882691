"""The pace of repairs, over a clock of the test's own: pure arithmetic (F9)."""

import pytest

from installer.pace import Pace


def stomped(pace: Pace, times: int, every: float, start: float = 1000.0) -> tuple[float, list[float]]:
    """Undo each repair `every` so many seconds; return the time at the end and how long each repair waited."""
    now, waits = start, []
    for _ in range(times):
        wait = pace.wait(now)
        waits.append(wait)
        pace.repaired(now + wait)
        now += max(every, wait)
    return now, waits


def test_what_happens_five_times_a_second_is_repaired_at_once_for_ever() -> None:
    assert set(stomped(Pace(), 1000, 0.2)[1]) == {0.0}


def test_a_burst_is_repaired_at_once() -> None:
    assert set(stomped(Pace(), 10, 0.001)[1]) == {0.0}


def test_a_fight_is_met_further_and_further_apart() -> None:
    waits = stomped(Pace(), 30, 0.01)[1]
    paused = [wait for wait in waits if wait]
    assert len(paused) >= 15
    assert paused == sorted(paused)
    assert paused[-1] == pytest.approx(Pace.longest_pause, abs=0.02)


def test_a_fight_ends_after_quiet() -> None:
    pace = Pace()
    now, _ = stomped(pace, 30, 0.01)
    assert pace.wait(now) > 0
    assert pace.wait(now + Pace.peace) == 0
    assert set(stomped(pace, 10, 0.001, now + Pace.peace)[1]) == {0.0}
