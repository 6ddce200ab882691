"""When an agent exits so that the next one sees a netns: only if that helps, and not repeatedly (F41)."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from installer.host.restart import EVERY, MARGIN, record_restart, restart_record, would_help

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.kernel

CREATED = 10_000.0
NOW = CREATED + 60


def test_only_a_netns_mounted_since_the_process_was_created_justifies_a_restart(tmp_path: Path) -> None:
    socket = tmp_path / "agent.sock"
    assert would_help(socket, CREATED + 1, CREATED, NOW)
    assert would_help(socket, CREATED - MARGIN / 2, CREATED, NOW), "a clock was set meanwhile"
    assert not would_help(socket, CREATED - 2 * MARGIN, CREATED, NOW)


@pytest.mark.parametrize(
    ("ended", "helps"), [(NOW - 1, False), (NOW - EVERY + 1, False), (NOW - EVERY, True), (NOW + 3600, True)]
)
def test_a_recent_restart_prevents_another(tmp_path: Path, ended: float, helps: bool) -> None:
    socket = tmp_path / "agent.sock"
    assert record_restart(socket)
    os.utime(restart_record(socket), (ended, ended))
    assert would_help(socket, CREATED + 1, CREATED, NOW) is helps, "a clock that was set back prevents no restart"


def test_no_restart_where_it_cannot_be_recorded(tmp_path: Path) -> None:
    assert not record_restart(tmp_path / "nowhere" / "agent.sock")


def test_a_process_knows_when_it_was_created_however_late_it_runs() -> None:
    program = "from installer.host.restart import process_created; print(process_created())"
    script = 'date +%s.%N; sleep 0.5; exec "$0" -c "$1"'
    told = subprocess.run(
        ["/bin/sh", "-ec", script, sys.executable, program], capture_output=True, check=True, text=True
    )
    before, created = map(float, told.stdout.split())
    assert created < before + 0.1
