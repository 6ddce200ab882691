"""A short run at a real API server: pods are replaced, and the agent's memory and its cost at rest are measured."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.soak.cluster import run

pytestmark = [pytest.mark.apiserver, pytest.mark.slow]

PODS = 3


@pytest.mark.timeout(900)
def test_a_short_run_replaces_pods_and_measures_the_agent() -> None:
    with TemporaryDirectory(prefix="churn-") as folder:
        report = run(Path(folder), (0.05, 0.05), print, PODS)
    assert len(report.samples) >= 3
    assert report.samples[-1].pods > PODS
    assert all(each.mib > 0 for each in report.samples)
    assert report.at_rest.wakeups > 0
