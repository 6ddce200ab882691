"""Logs: one JSON object per line, and nothing fails or waits if they cannot be written (F24)."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from installer.config.value_types import LogLevel
from installer.telemetry import logs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.pure


class Piped:
    """A logger whose handler writes to a pipe."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.handler = logs.Handler(self.writer)
        self.log = logging.Logger("test")
        self.log.addHandler(self.handler)

    def read(self) -> list[str]:
        """Take the lines out of it."""
        return os.read(self.reader, 1 << 20).decode().splitlines()


@pytest.fixture
def piped() -> Iterator[Piped]:
    made = Piped()
    yield made
    os.close(made.writer)
    os.close(made.reader)


def test_a_line_is_a_json_object_with_the_records_fields(piped: Piped) -> None:
    piped.log.warning("repaired", extra={"file": "/x", "settings": "kopf's own"})
    line = json.loads(piped.read()[0])
    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "warn", "logger": "test", "msg": "repaired", "file": "/x"}


def test_a_message_cannot_forge_a_second_line(piped: Piped) -> None:
    piped.log.error("one\ntwo", extra={"reason": 'a "quoted"\nreason'})
    assert len(piped.read()) == 1


def test_an_exception_is_logged_with_its_traceback(piped: Piped) -> None:
    try:
        int("wrong")
    except ValueError:
        piped.log.exception("failed")
    assert "ValueError: invalid literal" in json.loads(piped.read()[0])["exc_info"]


def test_a_record_that_cannot_be_formatted_is_logged_as_such(piped: Piped) -> None:
    piped.log.error("%d", "no number")
    assert "TypeError" in json.loads(piped.read()[0])["msg"]


def test_a_long_field_keeps_both_ends(piped: Piped) -> None:
    piped.log.error("a" + "\n" * 1_000_000 + "z", extra={"reason": "a" + "\x1b" * 2_000_000 + "z"})
    (text,) = piped.read()
    assert text.isascii()
    assert text.isprintable()
    line = json.loads(text)
    for each in (line["msg"], line["reason"]):
        assert (each[0], each[-1]) == ("a", "z")
        assert len(each) < 4200


def test_a_full_pipe_blocks_nothing_and_the_next_line_is_complete(piped: Piped) -> None:
    for _ in range(100):
        piped.log.error("x" * 3000)
    dropped = piped.handler.dropped
    assert 0 < dropped < 100
    os.read(piped.reader, 1 << 20)
    piped.log.error("and on")
    assert json.loads(piped.read()[-1])["msg"] == "and on"
    assert piped.handler.dropped == dropped


def test_a_line_after_a_truncated_one_is_complete(piped: Piped) -> None:
    piped.log.error("long", extra={f"field{number}": "x" * 4000 for number in range(24)})  # more than a pipe holds
    assert piped.handler.dropped == 1
    os.read(piped.reader, 1 << 20)
    piped.log.error("and on")
    cut_off, whole = piped.read()
    assert cut_off == ""
    assert json.loads(whole)["msg"] == "and on"


def test_a_closed_pipe_raises_nothing() -> None:
    reader, writer = os.pipe()
    handler = logs.Handler(writer)
    os.close(reader)
    handler.emit(logging.makeLogRecord({"msg": "to nobody", "levelno": logging.INFO}))
    assert handler.dropped == 1
    os.close(writer)


CLOSED = """
import os, sys
os.close(2)
os.execv(sys.executable, [sys.executable, "-c", '''
import logging, sys
from installer.telemetry import logs
from installer.config.value_types import LogLevel
with logs.to_stderr(LogLevel.DEBUG) as handler, open(sys.argv[1], "w") as file:
    logging.error("into the void")
    print("an unguarded write", file=sys.stderr)
    file.write(f"descriptor {file.fileno()} > 2, dropped {handler.dropped}")
''', sys.argv[1]])
"""


def test_with_stderr_closed_no_other_file_receives_the_log(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", CLOSED, str(tmp_path / "file")], check=True, timeout=30)
    descriptor = int((tmp_path / "file").read_text().split()[1])
    assert descriptor > 2
    assert (tmp_path / "file").read_text() == f"descriptor {descriptor} > 2, dropped 0"


@pytest.mark.parametrize("level", LogLevel)
def test_the_log_level_changes_at_run_time(level: LogLevel) -> None:
    before = logging.getLogger().level
    try:
        logs.switch(level)
        assert logging.getLogger("anything").isEnabledFor(logging.INFO) == (level in (LogLevel.INFO, LogLevel.DEBUG))
        assert logging.getLogger("anything").isEnabledFor(logging.CRITICAL)
    finally:
        logging.getLogger().setLevel(before)
