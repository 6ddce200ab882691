"""When an agent ends so that the next one sees a netns: where that helps, and not again and again (F41)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from installer.host.restart import EVERY, MARGIN, keep_that_it_ends, started_anew_file, would_help

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.kernel

STARTED = 10_000.0
NOW = STARTED + 60


def test_it_ends_for_what_was_mounted_since_its_start_alone(tmp_path: Path) -> None:
    socket = tmp_path / "agent.sock"
    assert would_help(socket, STARTED + 1, STARTED, NOW)
    assert would_help(socket, STARTED - MARGIN / 2, STARTED, NOW), "its container has its mounts before it runs"
    assert not would_help(socket, STARTED - 2 * MARGIN, STARTED, NOW)


@pytest.mark.parametrize(
    ("ended", "helps"), [(NOW - 1, False), (NOW - EVERY + 1, False), (NOW - EVERY, True), (NOW + 3600, True)]
)
def test_it_has_not_ended_for_it_of_late(tmp_path: Path, ended: float, helps: bool) -> None:
    socket = tmp_path / "agent.sock"
    assert keep_that_it_ends(socket)
    os.utime(started_anew_file(socket), (ended, ended))
    assert would_help(socket, STARTED + 1, STARTED, NOW) is helps, "a clock that was set back holds nothing up"


def test_it_stays_where_that_cannot_be_kept(tmp_path: Path) -> None:
    assert not keep_that_it_ends(tmp_path / "nowhere" / "agent.sock")
