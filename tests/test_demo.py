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


def left() -> list[Path]:
    """What a demo has while it runs."""
    cgroups = Path("/sys/fs/cgroup").glob("*/istio-cni-tests-*")
    return [*Path(tempfile.gettempdir()).glob("istio-cni-demo-*"), *cgroups]


def test_demo_shows_traffic_through_envoy() -> None:
    before = left()
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for said in (
        '+      "type": "istio-cni"',
        "shop/meshed: redirect",
        "shop/plain: pass, because never injected",
        "istio-system/excluded: pass, because namespace istio-system is excluded",
        "{'inbound': 1, 'outbound': 1}",
        "ms after it was written",
        "entry removed",
    ):
        assert said in done.stdout
    assert left() == before


def test_demo_cleans_up_when_interrupted() -> None:
    before = left()
    with subprocess.Popen(
        COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as demo:
        assert demo.stdout
        assert demo.stderr
        for line in demo.stdout:
            if "Envoy runs in the meshed pod" in line:
                break
        assert len(left()) > len(before)
        os.killpg(demo.pid, signal.SIGINT)  # as a terminal does it: to all of the foreground
        demo.stdout.read()
        assert "cleaned up" in demo.stderr.read()
    assert demo.returncode == 130
    assert left() == before
