"""Shows the status of a cluster as it changes: in place on a terminal, a line for each change in a pipe, or for programs."""

from __future__ import annotations

import shutil
import signal
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from installer.kube.times import rfc3339
from installer.status import data
from installer.status.changes import describe_changes
from installer.status.text import render_status
from installer.terminal.printable import say, write
from installer.terminal.stdout import is_drawable, style
from installer.terminal.tables import Colour

if TYPE_CHECKING:
    from collections.abc import Iterator

    from installer.status.model import ClusterStatus

# Control sequences: enter and leave the alternate screen, without a cursor and without wrapping; home; clear what is left.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


class Show(Protocol):
    """Shows the cluster as it changes."""

    ticks: bool  # whether it has to be shown again as time passes, for the ages in it

    def show(self, found: ClusterStatus) -> None:
        """Show it, if it is not shown already."""

    def lost(self, why: str) -> None:
        """Report that the API server does not answer; the next `show` reports that it does."""


@contextmanager
def showing(output: str) -> Iterator[Show]:
    """Show statuses in the way that stdout can; `output` is table, wide, json or yaml."""
    if output in ("json", "yaml"):
        yield Documents(output)
    elif not is_drawable():
        yield Lines()
    else:
        screen = Screen(wide=output == "wide")
        before = signal.signal(signal.SIGTERM, _terminated)
        try:
            yield screen
        finally:
            screen.close()
            signal.signal(signal.SIGTERM, before)


def _terminated(*_: object) -> None:
    sys.exit(128 + signal.SIGTERM)  # runs `finally`, which restores the terminal


class Screen:
    """Draws in place, as much as fits; leaves the last status on the terminal when it ends."""

    ticks = True

    def __init__(self, *, wide: bool) -> None:
        self._wide = wide
        self._found: ClusterStatus | None = None
        self._lost = ""
        self._drawn = ""

    def show(self, found: ClusterStatus) -> None:
        """Draw it."""
        self._found, self._lost = found, ""
        self._draw()

    def lost(self, why: str) -> None:
        """Draw the last known status below a line that says why it is old."""
        self._lost = why
        self._draw()

    def close(self) -> None:
        """Restore the terminal, and write the last status on it."""
        if self._drawn:
            write(_LEAVE + self._text())

    def _draw(self) -> None:
        lines, height = self._text().splitlines(), shutil.get_terminal_size().lines
        if len(lines) > height:
            lines = [*lines[: height - 1], f"({len(lines) - height + 1} more lines: install-cni status | less)"]
        drawn = _HOME + "\n".join(f"{line}{_END_OF_LINE}" for line in lines) + _END_OF_SCREEN
        if drawn != self._drawn:
            write(drawn if self._drawn else _ENTER + drawn)
        self._drawn = drawn

    def _text(self) -> str:
        lines = style().wrapped(self._lost, "", "  ", Colour.RED) if self._lost else []
        if self._found:
            lines.append(render_status(self._found, datetime.now(UTC), style(), wide=self._wide))
        return "\n".join(lines)


class Lines:
    """Writes a line for each change, with its time."""

    ticks = False

    def __init__(self) -> None:
        self._shown: ClusterStatus | None = None
        self._lost = False

    def show(self, found: ClusterStatus) -> None:
        """Write what has changed."""
        lines = describe_changes(self._shown, found)
        if self._lost:
            lines.insert(0, "The API server is reachable again.")
        self._write(lines)
        self._shown, self._lost = found, False

    def lost(self, why: str) -> None:
        """Report it once."""
        if not self._lost:
            self._write([" ".join(why.split())])
        self._lost = True

    def _write(self, lines: list[str]) -> None:
        now = rfc3339(datetime.now(UTC))
        for line in lines:
            say(f"{now} {line}")


class Documents:
    """Writes each status that differs from the one before: JSON on a line, YAML between `---`."""

    ticks = False

    def __init__(self, output: str) -> None:
        self._output = output
        self._shown: ClusterStatus | None = None

    def show(self, found: ClusterStatus) -> None:
        """Write it."""
        if found != self._shown:
            text = data.as_json(found, on_a_line=True) if self._output == "json" else f"---\n{data.as_yaml(found)}"
            write(text)
        self._shown = found

    def lost(self, why: str) -> None:
        """Report it on stderr, where no program reads documents."""
        say(f"Error: {why}", err=True)
