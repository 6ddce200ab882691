"""One API server with the chart, for the tests of the simulated agents."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scale.site import Site
from tests.support.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A cluster with the chart's definitions and rights."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        made = Site(running)
        made.install()
        yield made
