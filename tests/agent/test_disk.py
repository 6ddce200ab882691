"""A full disk, a read-only one, one mounted over another, no inotify: reported with the reason, retried, nothing lost."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.mounted import SCENES

pytestmark = pytest.mark.kernel

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES)
def test_disk_errors_are_reported_and_leave_the_files_whole(scene: str, tmp_path: Path) -> None:
    alone = ["/usr/bin/unshare", "--mount", "--propagation", "private"]
    if "inotify" in scene:
        alone += ["--user", "--map-root-user"]
    command = [*alone, sys.executable, "-m", "tests.support.mounted", scene, str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
