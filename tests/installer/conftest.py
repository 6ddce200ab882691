"""What the tests of the installer share."""

from pathlib import Path

import pytest

from tests.installer.node import PRIMARY, NodeOnDisk


@pytest.fixture
def node(tmp_path: Path) -> NodeOnDisk:
    """A node whose primary CNI has written its conflist."""
    on_disk = NodeOnDisk.make(tmp_path)
    (on_disk.conf / "10-primary.conflist").write_bytes(PRIMARY)
    return on_disk
