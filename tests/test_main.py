"""The command line as a whole."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.pure

SLOW = {"asyncio", "aiohttp", "jsonschema", "kopf", "kubernetes", "logging", "ssl", "watchdog", "yaml"}  # to import


@pytest.mark.parametrize("words", [[], ["run"], ["status"], ["explain"], ["teardown"], ["manifest", "generate"]])
def test_help_imports_nothing_slow(words: list[str]) -> None:
    code = f"""
import sys
from installer.main import main
main([*{words!r}, "--help"], standalone_mode=False)
print("imported:", *sorted({SLOW!r} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.endswith("\nimported:\n"), done.stdout[-200:] + done.stderr


def test_the_help_of_a_command_is_about_that_command() -> None:
    command = [sys.executable, "-m", "installer", "controller", "--help"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "Log level of the controller" in " ".join(said.split())
    assert "readiness probe" not in " ".join(said.split())
