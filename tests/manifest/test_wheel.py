"""The package as it is installed brings its chart."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.chart.helm import CHART
from tests.kube.programs import folder

SOURCE = Path(__file__).parents[2]
WHAT_A_WHEEL_IS_MADE_OF = ("pyproject.toml", "README.md", "LICENSE", "plugin", "installer", "charts")


def test_the_wheel_holds_the_chart_and_generates_from_it(tmp_path: Path) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    for name in WHAT_A_WHEEL_IS_MADE_OF:
        copy = shutil.copytree if (SOURCE / name).is_dir() else shutil.copy
        copy(SOURCE / name, source / name)
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", f"--wheel-dir={tmp_path}", str(source)]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True, timeout=100)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)

    chart = site / "installer" / "manifest" / "chart"
    files = {path.relative_to(CHART) for path in CHART.rglob("*") if path.is_file()}
    assert {path.relative_to(chart) for path in chart.rglob("*") if path.is_file()} == files

    shutil.rmtree(source)
    environment = {"PYTHONPATH": str(site), "PATH": f"{folder()}:{os.defpath}", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "installer", "manifest", "generate"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "kind: DaemonSet" in done.stdout
