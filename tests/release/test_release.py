"""The files of a release: complete, of one version, with sums that hold."""

from __future__ import annotations

import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from installer.version import RELEASE
from tests.release.build import HERE, SUMS, build, contradictions

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e

CHART = "version: 1.2.3\nappVersion: 1.2.3\n"
CHANGELOG = "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-01-01\n"


@pytest.mark.parametrize(
    ("chart", "changelog", "named"),
    [
        (CHART, CHANGELOG, []),
        (CHART.replace("version: 1.2.3", "version: 1.2.4", 1), CHANGELOG, ["Chart.yaml: version is 1.2.4"]),
        (CHART.replace("appVersion: 1.2.3", "appVersion: 1.2"), CHANGELOG, ["Chart.yaml: appVersion is 1.2"]),
        (CHART, "# Changelog\n\n## [Unreleased]\n", ["no heading `## [1.2.3]`"]),
        (CHART, CHANGELOG.replace("1.2.3", "11243"), ["no heading `## [1.2.3]`"]),
    ],
)
def test_a_version_that_contradicts_the_agent_is_named(chart: str, changelog: str, named: list[str]) -> None:
    found = contradictions("1.2.3", chart, changelog)
    assert len(found) == len(named)
    assert all(expected in line for expected, line in zip(named, found, strict=True))


def test_the_release_is_complete_and_its_checksums_match(tmp_path: Path) -> None:
    made = {each.name: each for each in build(tmp_path / "release")}
    chart, wheel = f"istio-cni-{RELEASE}.tgz", f"istio_cni-{RELEASE}-py3-none-any.whl"
    assert {chart, wheel, SUMS} < set(made)
    assert len(made) == 5  # and the image and the plugin of this machine's architecture
    command = ["/usr/bin/sha256sum", "--check", "--strict", SUMS]
    subprocess.run(command, cwd=tmp_path / "release", check=True, capture_output=True)
    assert len(made[SUMS].read_text().splitlines()) == 4
    with tarfile.open(made[chart]) as packed:
        inside = {member.name.partition("/")[2] for member in packed}
    there = {
        str(each.relative_to(HERE / "charts" / "istio-cni")) for each in (HERE / "charts" / "istio-cni").rglob("*.yaml")
    }
    assert there <= inside


def test_the_chart_is_of_the_agents_version() -> None:
    chart = (HERE / "charts" / "istio-cni" / "Chart.yaml").read_text()
    assert contradictions(RELEASE, chart, f"## [{RELEASE}]") == []
