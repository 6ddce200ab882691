"""With KUBE_BIN_DIR nothing is built: what is there is run, and what is missing or wrong is named."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.programs.lots import KUBE
from tests.support.call import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.apiserver


def build(given: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.programs.build", "kube"]
    environment = os.environ | {"KUBE_BIN_DIR": str(given)}
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_given_program_is_used(tmp_path: Path) -> None:
    for program in KUBE.programs:
        (tmp_path / program.name).symlink_to(KUBE.folder / program.name)
    done = build(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f": taken from {tmp_path}\n")


def test_missing_or_unusable_program_is_named(tmp_path: Path) -> None:
    (tmp_path / "kubectl").write_text("#!/bin/sh\necho of something else\n")
    (tmp_path / "kubectl").chmod(0o755)
    done = build(tmp_path)
    assert done.returncode != 0
    assert f"{tmp_path / 'helm'} cannot be run: No such file or directory" in done.stderr
    assert "kubectl" in done.stderr
    assert "saw 'of something else'" in done.stderr
    assert done.stderr.count("KUBE_BIN_DIR: ") == len(KUBE.programs)
