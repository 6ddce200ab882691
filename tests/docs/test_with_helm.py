"""The commands of the documentation that need helm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Block, all_blocks
from tests.programs.lots import KUBE

pytestmark = pytest.mark.apiserver

SLOWEST = 90.0  # seconds


@pytest.mark.parametrize(
    "block", [each for each in all_blocks() if each.lines[:1] == ("# needs helm",)], ids=lambda each: each.where
)
def test_each_command_that_needs_helm_succeeds(block: Block, tmp_path: Path) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    path = f"{Path(sys.executable).parent}:{KUBE.folder}:/usr/bin:/bin"
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", "\n".join(block.lines)],
        cwd=tmp_path, env=os.environ | {"PATH": path, "HOME": str(tmp_path)}, capture_output=True, text=True,
        timeout=SLOWEST, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
