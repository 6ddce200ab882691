"""When an agent exits so that the next one sees a netns: only if that helps, and not repeatedly (F41)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from installer.host.restart import EVERY, MARGIN, record_restart, restart_record, would_help

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.kernel

STARTED = 10_000.0
NOW = STARTED + 60


def test_only_a_netns_mounted_since_the_start_justifies_a_restart(tmp_path: Path) -> None:
    socket = tmp_path / "agent.sock"
    assert would_help(socket, STARTED + 1, STARTED, NOW)
    assert would_help(socket, STARTED - MARGIN / 2, STARTED, NOW), "its container has its mounts before it runs"
    assert not would_help(socket, STARTED - 2 * MARGIN, STARTED, NOW)


@pytest.mark.parametrize(
    ("ended", "helps"), [(NOW - 1, False), (NOW - EVERY + 1, False), (NOW - EVERY, True), (NOW + 3600, True)]
)
def test_a_recent_restart_prevents_another(tmp_path: Path, ended: float, helps: bool) -> None:
    socket = tmp_path / "agent.sock"
    assert record_restart(socket)
    os.utime(restart_record(socket), (ended, ended))
    assert would_help(socket, STARTED + 1, STARTED, NOW) is helps, "a clock that was set back prevents no restart"


def test_no_restart_where_it_cannot_be_recorded(tmp_path: Path) -> None:
    assert not record_restart(tmp_path / "nowhere" / "agent.sock")
