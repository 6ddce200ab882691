"""Puts the files of a release into `build/release/`: `make release`, or `python -m tests.release.build`.

The image as an OCI archive, the chart as a package, the command line as a wheel, the plugin file, and their SHA-256 sums as
`sha256sum --check` reads them. The version is that of `installer/version.py`; chart and changelog have to agree with it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from installer.version import RELEASE
from tests.image import build as image
from tests.programs.lots import KUBE

HERE = Path(__file__).parents[2]
FOLDER = HERE / "build" / "release"
SUMS = "SHA256SUMS"
SLOWEST = 300.0  # seconds that one program may take


def contradictions(version: str, chart: str, changelog: str) -> list[str]:
    """Name what does not speak of this version.

    Args:
        version: of the agent.
        chart: the text of Chart.yaml.
        changelog: the text of CHANGELOG.md.
    """
    stated = yaml.safe_load(chart)
    found = [
        f"charts/istio-cni/Chart.yaml: {key} is {stated[key]}, expected {version} as in installer/version.py"
        for key in ("version", "appVersion")
        if stated[key] != version
    ]
    if not re.search(rf"^## \[{re.escape(version)}\]", changelog, re.MULTILINE):
        found.append(
            f"CHANGELOG.md: saw no heading `## [{version}]`, expected one; move what is under Unreleased below it"
        )
    return found


def build(into: Path) -> list[Path]:
    """Make the files of a release.

    Args:
        into: a folder, which is made anew.

    Returns:
        The files, the sums last.
    """
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    made = [
        Path(shutil.copy(image.archive(), into / f"install-cni-{RELEASE}-linux-{machine}.tar")),
        Path(shutil.copy(HERE / "build" / "istio-cni", into / f"istio-cni-{RELEASE}-linux-{machine}")),
        _chart(into),
        _wheel(into),
    ]
    sums = into / SUMS
    sums.write_text("".join(f"{hashlib.sha256(each.read_bytes()).hexdigest()}  {each.name}\n" for each in sorted(made)))
    return [*made, sums]


def _chart(into: Path) -> Path:
    with tempfile.TemporaryDirectory() as home:
        command = [str(KUBE.folder / "helm"), "package", str(HERE / "charts" / "istio-cni"), f"--destination={into}"]
        _run(command, {"HOME": home, "PATH": "/usr/bin:/bin"})
    return into / f"istio-cni-{RELEASE}.tgz"


def _wheel(into: Path) -> Path:
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", f"--wheel-dir={into}"]
    with tempfile.TemporaryDirectory() as copy:  # setuptools writes beside what it builds
        files = _run(["/usr/bin/git", "-C", str(HERE), "ls-files", "-z"], {}).split("\0")
        for name in filter(None, files):
            target = Path(copy, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(HERE / name, target)
        _run([sys.executable, "-m", "pip", "wheel", *options, copy], dict(os.environ))
    return into / f"istio_cni-{RELEASE}-py3-none-any.whl"


def _run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SLOWEST, check=False)
    if done.returncode != 0:
        raise SystemExit(f"release: {' '.join(command)} ended with status {done.returncode}:\n{done.stderr}")
    return done.stdout


def main() -> None:
    """Make a release of what is committed.

    Raises:
        SystemExit: with what keeps it from being one.
    """
    found = contradictions(
        RELEASE, (HERE / "charts" / "istio-cni" / "Chart.yaml").read_text(), (HERE / "CHANGELOG.md").read_text()
    )
    if changed := _run(["/usr/bin/git", "-C", str(HERE), "status", "--porcelain"], {}):
        found.append(f"the working tree has changes that are not committed:\n{changed}")
    if found:
        raise SystemExit("\n".join(f"release: {each}" for each in found))
    for each in build(FOLDER):
        print(f"release: {each.relative_to(HERE)} {each.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
