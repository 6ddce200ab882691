"""`install-cni explain` on a terminal (a pty), and on one whose encoding lacks characters."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from tests.explain.test_command import DEPLOYMENT
from tests.explain.test_hostile import HARMLESS, OBJECTS, pod

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = pytest.mark.pure

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def on_a_terminal(*words: str, columns: int = 80, environment: Mapping[str, str] = MappingProxyType({})) -> str:
    """Run a command on a terminal of its own, and return what it writes there."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    whole = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": "/nowhere", "TERM": "xterm", **environment}
    written = bytearray()
    with subprocess.Popen(
        [sys.executable, "-m", "installer", *words],
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
        env=whole,
    ) as process:
        os.close(slave)
        try:
            while data := os.read(master, 65536):
                written += data
        except OSError:
            pass  # EIO: the command has ended
        finally:
            process.kill()
            os.close(master)
    return written.decode().replace("\r\n", "\n")


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    path = tmp_path / "web.yaml"
    path.write_text(DEPLOYMENT)
    return str(path)


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_lines_fit_the_terminal_and_words_stay_whole(manifest: str, columns: int) -> None:
    text = on_a_terminal("explain", "-f", manifest, columns=columns)
    plain = COLOUR.sub("", text)
    assert [line for line in plain.splitlines() if len(line) > columns and " " in line.strip()] == []
    assert "  ! init container migrate runs before" in plain
    assert "\x1b[32mshop/web (Deployment): REDIRECT: it is a meshed pod\x1b[0m\n" in text
    assert "\x1b[33m  ! init container migrate" in text


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_without_colours_gets_none(manifest: str, environment: dict[str, str]) -> None:
    assert "\x1b" not in on_a_terminal("explain", "-f", manifest, environment=environment)


@pytest.mark.parametrize("case", [*OBJECTS, "a pod"])
def test_a_terminal_gets_colours_of_ours_alone(tmp_path: Path, case: str) -> None:
    path = tmp_path / "pod.json"
    path.write_text(json.dumps((OBJECTS | {"a pod": pod()})[case]))
    for words in (("explain",), ("trace", "shop/web", "--to=10.0.0.1:80")):
        text = COLOUR.sub("", on_a_terminal(*words, "-f", str(path)))
        assert [each for each in text if not (each.isprintable() or each in HARMLESS)] == []
        assert "Traceback" not in text


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_what_the_encoding_lacks_is_escaped(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "pod.json"
    path.write_text(json.dumps({"kind": "Pod", "metadata": {"name": "節点", "namespace": "shop"}, "spec": {}}))
    command = [sys.executable, "-m", "installer", "explain", "-f", str(path)]
    done = subprocess.run(
        command, capture_output=True, timeout=60, check=False, env={"PATH": "/bin", "PYTHONIOENCODING": encoding}
    )
    said = (done.stdout + done.stderr).decode(encoding)
    assert "Traceback" not in said
    assert ("shop/節点" if encoding == "utf-8" else "shop/\\u7bc0\\u70b9") in said
