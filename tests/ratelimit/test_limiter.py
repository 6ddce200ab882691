"""The pace of repairs and of reports, over a clock of the test's own: pure arithmetic (F9)."""

import pytest

from installer.ratelimit.limiter import EVENTS, REPAIRS, REPORTS, ROLLOUTS, Limits, Pace

pytestmark = pytest.mark.pure

each = pytest.mark.parametrize("limits", [REPAIRS, REPORTS, ROLLOUTS, EVENTS])


def done(pace: Pace, times: int, every: float, start: float = 1000.0) -> tuple[float, list[float]]:
    """Have an act be asked for `every` so many seconds; return the time at the end and how long each had to wait."""
    now, waits = start, []
    for _ in range(times):
        wait = pace.wait(now)
        waits.append(wait)
        pace.done(now + wait)
        now += max(every, wait)
    return now, waits


@each
def test_what_comes_at_the_sustained_rate_is_let_through_at_once_for_ever(limits: Limits) -> None:
    assert set(done(Pace(limits), 1000, 1 / limits.sustained)[1]) == {0.0}


@each
def test_a_burst_is_let_through_at_once(limits: Limits) -> None:
    assert set(done(Pace(limits), int(limits.burst), 0.001)[1]) == {0.0}


@each
def test_what_goes_on_is_let_through_further_and_further_apart(limits: Limits) -> None:
    waits = done(Pace(limits), 30, 0.01)[1]
    paused = [round(wait, 6) for wait in waits if wait]
    assert len(paused) >= 15
    assert paused == sorted(paused)
    assert paused[-1] == pytest.approx(limits.longest_pause, abs=0.02)


@each
def test_it_is_over_after_quiet(limits: Limits) -> None:
    pace = Pace(limits)
    now, _ = done(pace, 30, 0.01)
    assert pace.wait(now) > 0
    assert 0 < pace.peace_in(now) <= limits.peace + 1e-6
    assert pace.wait(now + limits.peace) == 0
    assert pace.peace_in(now + limits.peace) == 0
    assert set(done(pace, int(limits.burst), 0.001, now + limits.peace)[1]) == {0.0}


def test_the_quiet_is_longer_than_the_longest_pause() -> None:
    """Or each act after it would count for the first."""
    assert all(limits.peace > limits.longest_pause for limits in (REPAIRS, REPORTS, ROLLOUTS, EVENTS))


def test_without_a_fight_there_is_nothing_to_be_over() -> None:
    pace = Pace(REPAIRS)
    done(pace, 5, 0.001)
    assert pace.peace_in(1000.0) == 0
