"""Programs in a pod's netns end in time and write a bounded amount, whatever the pod has put there (F37, F45)."""

from __future__ import annotations

import os
import signal

import pytest

from plugin import tool
from plugin.backend import RefusedError
from plugin.tool import Tool

pytestmark = pytest.mark.kernel


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - iterdir holds one more open


def test_output_and_errors_are_read() -> None:
    before = descriptors()
    ended = Tool(["/bin/sh", "-c", "cat; echo wrong >&2; exit 3"], "text").finish()
    assert ended == (3, "text", "wrong\n", False)
    assert ended.why == "wrong"
    assert descriptors() == before


def test_a_program_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "SECONDS", 0.3)
    ended = Tool(["/bin/sh", "-c", "echo begun; exec sleep 600"], "").finish()
    assert ended == (-signal.SIGKILL, "begun\n", "", True)
    assert ended.why == "it did not end within 0 s"


@pytest.mark.parametrize("said", ["", "a warning\n"])
@pytest.mark.parametrize(
    ("number", "why"),
    [(9, "signal 9 (SIGKILL), as the kernel does for want of memory"), (11, "signal 11 (SIGSEGV)"), (40, "signal 40")],
)
def test_a_program_that_is_ended_by_a_signal_is_not_called_slow(number: int, why: str, said: str) -> None:
    ended = Tool(["/bin/sh", "-c", f"printf '{said}' >&2; kill -{number} $$"], "").finish()
    assert ended == (-number, "", said, False)
    assert ended.why.startswith(f"it was ended by {why}")
    assert "did not end" not in ended.why
    assert ("raise the agent's memory limit" in ended.why) == (number == signal.SIGKILL)
    assert ended.why.endswith("(a warning)") == bool(said)


@pytest.mark.parametrize("stream", ["1", "2"])
def test_a_program_that_writes_without_end_is_ended(monkeypatch: pytest.MonkeyPatch, stream: str) -> None:
    monkeypatch.setattr(tool, "LARGEST", 1 << 20)
    ended = Tool(["/bin/sh", "-c", f"sleep 0.3; exec /usr/bin/yes >&{stream}"], "").finish()
    assert (ended.status, len(ended.output) + len(ended.stderr)) == (-signal.SIGXFSZ, 1 << 20)
    assert "its output was larger than 1048576 bytes" in ended.why


def test_a_missing_program_is_refused_with_its_name() -> None:
    before = descriptors()
    with pytest.raises(RefusedError, match="/no/such/program does not exist"):
        Tool(["/no/such/program"], "")
    assert descriptors() == before
