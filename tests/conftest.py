"""What all tests share: the tiers that they are in, and a node's folders."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

from tests.support.ondisk import PRIMARY, NodeOnDisk

# No time limits, as the machine may be busy, and nothing is left in the tree. The tests' examples depend on the code alone, so
# that no commit is refused for what another one holds; `make fuzz` looks for new ones.
settings.register_profile(
    "tests", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile("search", settings.get_profile("tests"), derandomize=False, max_examples=1000)
settings.load_profile("tests")

TIERS = {"pure", "kernel", "containerd", "apiserver", "e2e"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse tests of no tier or of several, so that `make test-fast` leaves none out by mistake.

    Raises:
        pytest.UsageError: with the first such test.
    """
    for item in items:
        tiers = TIERS & {mark.name for mark in item.iter_markers()}
        if len(tiers) != 1:
            raise pytest.UsageError(
                f"{item.nodeid}: saw tiers {sorted(tiers)}, expected one of {sorted(TIERS)}: set pytestmark"
            )


class _ByWhatIsShared(LoadFileScheduling):  # type: ignore[misc]
    """Keeps the tests of a file together, and those of a folder that share what takes a minute to start."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        folder = file.rpartition("/")[0]
        return folder if folder == "tests/e2e/istio" else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    """Replace what `--dist loadfile` means."""
    return _ByWhatIsShared(config, log)


@pytest.fixture
def node(tmp_path: Path) -> NodeOnDisk:
    """A node whose primary CNI has written its conflist."""
    on_disk = NodeOnDisk.make(tmp_path)
    (on_disk.conf / "10-primary.conflist").write_bytes(PRIMARY)
    return on_disk
