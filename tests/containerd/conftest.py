"""One node for the tests of a module, unless it creates its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.mesh import Mesh

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """A node without our plugin."""
    with Mesh(tmp_path_factory.mktemp("mesh")) as mesh:
        mesh.node.write_primary()
        mesh.node.wait_network_ready()
        yield mesh
