"""Finds and runs the user's helm and kubectl; whatever goes wrong with them is a ProgramError."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from installer.terminal.printable import say

if TYPE_CHECKING:
    from collections.abc import Collection

PATIENCE = 120.0  # seconds for one run


class ProgramError(Exception):
    """A program is missing or failed: the message says what was seen and what to do."""


def find(name: str, given: Path | None) -> Path:
    """Find a program.

    `given` is the value of the program's option, a path or a name on PATH; None: the first on PATH.
    """
    found = shutil.which(str(given or name))
    if given and found:
        return Path(found).absolute()
    if given:
        raise ProgramError(f"--{name} {given}: no such program, expected the file of {name}")
    if not found:
        raise ProgramError(f"there is no {name} on PATH; install it, or name its file: --{name} FILE")
    if not Path(found).is_absolute():
        raise ProgramError(f"saw {found}, in a PATH relative to the current folder; name its file: --{name} FILE")
    return Path(found)


def run(program: Path, arguments: list[str], stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program in the user's environment."""
    command = [str(program), *arguments]
    try:
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except OSError as error:
        raise ProgramError(f"{program}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise ProgramError(f"{program} {arguments[0]} has not ended after {PATIENCE:.0f} s") from error


def checked(result: subprocess.CompletedProcess[str], fine: Collection[int] = (0,)) -> str:
    """Return what a program wrote; its warnings go to the user."""
    if result.returncode not in fine:
        message = (result.stderr or result.stdout).strip().removeprefix("Error: ")
        status = result.returncode
        ended = f"exit status {status}" if status >= 0 else f"ended by signal {-status}"
        raise ProgramError(f"{Path(result.args[0]).name}: {message or ended}")
    if result.stderr:
        say(result.stderr, err=True)
    return result.stdout
