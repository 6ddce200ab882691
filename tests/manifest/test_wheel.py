"""The package brings its chart where it is installed, and is installed without a word."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.chart.helm import CHART
from tests.programs.lots import KUBE

pytestmark = pytest.mark.apiserver

SOURCE = Path(__file__).parents[2]
WHAT_A_WHEEL_IS_MADE_OF = ("pyproject.toml", "README.md", "LICENSE", "plugin", "installer", "charts")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the source that holds only what a wheel is made of."""
    made = tmp_path / "source"
    made.mkdir()
    for name in WHAT_A_WHEEL_IS_MADE_OF:
        copy = shutil.copytree if (SOURCE / name).is_dir() else shutil.copy
        copy(SOURCE / name, made / name)
    return made


def pip(command: str, *arguments: str) -> str:
    """Run pip with the build backend that is here, and return all that it writes."""
    quietly = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", command, *quietly, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_newcomers_setup_installs_the_package_without_a_warning(source: Path, tmp_path: Path) -> None:
    elsewhere = ("--ignore-installed", "--prefix", str(tmp_path / "prefix"))  # what runs these tests stays installed
    assert pip("install", *elsewhere, "--editable", str(source)) == ""


def test_the_wheel_holds_the_chart_and_generates_from_it(source: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    assert pip("wheel", f"--wheel-dir={tmp_path}", str(source)) == ""
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)

    chart = site / "installer" / "manifest" / "chart"
    files = {path.relative_to(CHART) for path in CHART.rglob("*") if path.is_file()}
    assert {path.relative_to(chart) for path in chart.rglob("*") if path.is_file()} == files

    shutil.rmtree(source)
    environment = {"PYTHONPATH": str(site), "PATH": f"{KUBE.folder}:{os.defpath}", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "installer", "manifest", "generate"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "kind: DaemonSet" in done.stdout
