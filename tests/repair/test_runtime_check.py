"""What proves that the runtime does not load our entry, and what does not (F23)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from installer.fleet.state import NodeState
from installer.repair.runtime_check import LOADED_WITHIN, RuntimeCheck, Setup

pytestmark = pytest.mark.pure

WRITTEN = 1000.0
INSTALLED = NodeState(installed=True, reason=None, conflist="10-k8s.conflist")
FILE = "/etc/cni/net.d/10-k8s.conflist"


def setup(began: float, by_entry: bool | None) -> Setup:
    """A sandbox that began some seconds after the entry was written."""
    return Setup(f"id-{began}", f"shop/pod-{began:.0f}", "k8s", WRITTEN + began, by_entry)


def check(*setups: Setup, written: float = WRITTEN) -> RuntimeCheck:
    """The check of a starting agent that finds these sandboxes."""
    made = RuntimeCheck()
    made.update(setups, NodeState(), None, WRITTEN + 900)  # it has not looked at the files yet
    made.update(setups, INSTALLED, written, WRITTEN + 901)
    return made


def test_two_consecutive_sandboxes_without_the_entry_prove_it() -> None:
    assert check(setup(10, False)).reason(FILE) is None
    assert check(setup(10, False), setup(20, True), setup(30, False)).reason(FILE) is None
    assert check(setup(20, True), setup(30, False), setup(10, False)).reason(FILE) is None
    reason = check(setup(10, True), setup(20, False), setup(25, None), setup(30, False)).reason(FILE)
    assert reason is not None
    assert f"entry in {FILE}: after it was written there, pods shop/pod-20, shop/pod-30 were" in reason


def test_sandboxes_begun_before_the_runtime_could_load_the_entry_do_not_count() -> None:
    soon = LOADED_WITHIN
    assert check(setup(-5, False), setup(0.5, False), setup(soon, False)).reason(FILE) is None
    assert check(setup(10, False), setup(20, False), written=WRITTEN + 100).reason(FILE) is None


def test_the_finding_stays_when_those_pods_are_gone() -> None:
    found = check(setup(10, False), setup(20, False))
    found.update((), INSTALLED, WRITTEN, WRITTEN + 1000)
    assert found.reason(FILE) is not None
    found.update([setup(950, True)], INSTALLED, WRITTEN, WRITTEN + 1001)
    assert found.reason(FILE) is None


def test_a_restored_entry_starts_a_new_count() -> None:
    for changed in (
        replace(INSTALLED, repairs=1),
        replace(INSTALLED, conflist="05-other.conflist"),
        replace(INSTALLED, installed=False),
    ):
        found = check(setup(10, False), setup(20, False))
        found.update([setup(990, False)], changed, WRITTEN, WRITTEN + 1000)
        assert found.reason(FILE) is None
        found.update([setup(10, False), setup(990, False)], INSTALLED, WRITTEN, WRITTEN + 1002)
        assert found.reason(FILE) is None


def test_a_clock_set_back_after_the_write_hides_no_sandbox() -> None:
    late, hours = WRITTEN + 901, 6 * 3600.0
    for ahead in (hours, 30 * 24 * 3600.0):
        found = check(written=WRITTEN + ahead)  # by the clock as it was
        for age in (20, 30):
            found.update([setup(901 + age, False)], INSTALLED, WRITTEN + ahead, late + age + 1)
        assert found.reason(FILE) is not None
    found = RuntimeCheck()
    found.update((), INSTALLED, WRITTEN, WRITTEN + hours)
    found.update((), replace(INSTALLED, repairs=1), WRITTEN + hours, WRITTEN + hours + 1)
    found.update((), replace(INSTALLED, repairs=1), WRITTEN + hours, late)  # set back now
    for age in (20, 30):
        found.update([setup(901 + age, False)], replace(INSTALLED, repairs=1), WRITTEN + hours, late + age + 1)
    assert found.reason(FILE) is not None


def test_the_finding_stays_when_settings_rewrite_the_entry() -> None:
    both, again = (setup(10, False), setup(20, False)), WRITTEN + 950
    found = check(*both)
    found.update(both, INSTALLED, again, WRITTEN + 951)
    assert found.reason(FILE) is not None
    found.update([setup(952, True)], INSTALLED, again, WRITTEN + 953)  # it proves, however soon
    assert found.reason(FILE) is None
    one = check(both[0])
    one.update([both[0], setup(952, False)], INSTALLED, again, WRITTEN + 953)  # too soon to tell
    assert one.reason(FILE) is None
    one.update([both[0], setup(952, False), setup(960, False)], INSTALLED, again, WRITTEN + 961)
    assert one.reason(FILE) is not None


def test_sandboxes_dated_before_the_clock_was_set_back_do_not_count() -> None:
    hour = 3600.0  # before the agent came, the clock was ahead by it
    found = check(setup(hour, False), setup(hour + 10, False))
    assert found.reason(FILE) is None
    both = setup(hour, False), setup(hour + 10, False), setup(950, True)
    found.update(both, INSTALLED, WRITTEN, WRITTEN + 2 * hour)
    assert found.reason(FILE) is None
    later = *both, setup(hour + 100, False), setup(hour + 110, False)
    found.update(later, INSTALLED, WRITTEN, WRITTEN + 2 * hour)
    assert found.reason(FILE) is not None
