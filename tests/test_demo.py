"""`make demo` shows what it says, and cleans up after itself, also on Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.containerd

COMMAND = [sys.executable, "-m", "tests.demo"]


def started() -> subprocess.Popen[str]:
    return subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def left(demo: subprocess.Popen[str]) -> list[Path]:
    """What a demo has while it runs; other tests have cgroups of other processes."""
    root, name = Path("/sys/fs/cgroup"), f"istio-cni-tests-{demo.pid}-*"
    folders = Path(tempfile.gettempdir()).glob("istio-cni-demo-*")
    return [*folders, *root.glob(name), *root.glob(f"*/{name}")]


def test_demo_shows_traffic_through_envoy() -> None:
    with started() as demo:
        output, errors = demo.communicate(timeout=300)
    assert demo.returncode == 0, output + errors
    for expected in (
        '+      "type": "istio-cni"',
        "shop/meshed: redirect",
        "shop/plain: pass, because never injected",
        "istio-system/excluded: pass, because namespace istio-system is excluded",
        "{'inbound': 1, 'outbound': 1}",
        "ms after it was written",
        "entry removed",
    ):
        assert expected in output
    assert not left(demo)


def test_demo_cleans_up_when_interrupted() -> None:
    with started() as demo:
        assert demo.stdout
        assert demo.stderr
        for line in demo.stdout:
            if "Envoy runs in the meshed pod" in line:
                break
        assert len(left(demo)) > 1
        os.killpg(demo.pid, signal.SIGINT)  # as a terminal does it: to all of the foreground
        demo.stdout.read()
        assert "cleaned up" in demo.stderr.read()
    assert demo.returncode == 130
    assert not left(demo)
