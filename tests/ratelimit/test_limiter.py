"""Rate limits of repairs and reports, on a clock of the test's own (F9)."""

import pytest

from installer.ratelimit.limiter import EVENTS, REPAIRS, REPORTS, ROLLOUTS, Limits, RateLimiter

pytestmark = pytest.mark.pure

each = pytest.mark.parametrize("limits", [REPAIRS, REPORTS, ROLLOUTS, EVENTS])


def done(limiter: RateLimiter, times: int, every: float, start: float = 1000.0) -> tuple[float, list[float]]:
    """Request an action every `every` seconds; return the final time and each wait."""
    now, waits = start, []
    for _ in range(times):
        wait = limiter.wait(now)
        waits.append(wait)
        limiter.done(now + wait)
        now += max(every, wait)
    return now, waits


@each
def test_actions_at_the_sustained_rate_never_wait(limits: Limits) -> None:
    assert set(done(RateLimiter(limits), 1000, 1 / limits.sustained)[1]) == {0.0}


@each
def test_a_burst_does_not_wait(limits: Limits) -> None:
    assert set(done(RateLimiter(limits), int(limits.burst), 0.001)[1]) == {0.0}


@each
def test_the_pause_doubles_up_to_the_longest(limits: Limits) -> None:
    waits = done(RateLimiter(limits), 30, 0.01)[1]
    paused = [round(wait, 6) for wait in waits if wait]
    assert len(paused) >= 15
    assert paused == sorted(paused)
    assert paused[-1] == pytest.approx(limits.longest_pause, abs=0.02)


@each
def test_the_pause_ends_after_the_cooldown(limits: Limits) -> None:
    limiter = RateLimiter(limits)
    now, _ = done(limiter, 30, 0.01)
    assert limiter.wait(now) > 0
    assert 0 < limiter.cooldown_left(now) <= limits.cooldown + 1e-6
    assert limiter.wait(now + limits.cooldown) == 0
    assert limiter.cooldown_left(now + limits.cooldown) == 0
    assert set(done(limiter, int(limits.burst), 0.001, now + limits.cooldown)[1]) == {0.0}


def test_each_cooldown_is_longer_than_the_longest_pause() -> None:
    """Otherwise each later action would count as the first."""
    assert all(limits.cooldown > limits.longest_pause for limits in (REPAIRS, REPORTS, ROLLOUTS, EVENTS))


def test_no_cooldown_runs_within_the_limits() -> None:
    limiter = RateLimiter(REPAIRS)
    done(limiter, 5, 0.001)
    assert limiter.cooldown_left(1000.0) == 0
