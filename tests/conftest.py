"""What all tests share: the tiers that they are in, and a node's folders."""

import gc
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]
from xdist.workermanage import WorkerController  # type: ignore[import-untyped]

from tests.support.ondisk import PRIMARY, NodeOnDisk

# No time limits, as the machine may be busy, and nothing is left in the tree. The tests' examples depend on the code alone, so
# that no commit is refused for what another one holds; `make fuzz` looks for new ones.
settings.register_profile(
    "tests", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile("search", settings.get_profile("tests"), derandomize=False, max_examples=1000)
settings.load_profile("tests")

TIERS = ("e2e", "containerd", "apiserver", "kernel", "pure")  # from those that wait the most, beside the others' work


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run long tiers first: a long file that begins last would keep one worker busy after the others have ended."""
    items.sort(key=lambda item: TIERS.index(_tier(item)))


def _tier(item: pytest.Item) -> str:
    """Return the tier of a test.

    Raises:
        pytest.UsageError: if it has none or several, so that `make test-fast` leaves none out by mistake.
    """
    tiers = {mark.name for mark in item.iter_markers()} & {*TIERS}
    if len(tiers) != 1:
        raise pytest.UsageError(f"{item.nodeid}: saw tiers {sorted(tiers)}, expected one of {TIERS}: set pytestmark")
    return tiers.pop()


class _ByWhatIsShared(LoadFileScheduling):  # type: ignore[misc]
    """Keeps the tests of a file together, and those of a folder, which share servers, as far as no worker idles for it."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        folder = file.rpartition("/")[0]
        return folder if folder == "tests/e2e/istio" else file  # it shares what takes a minute to start

    def _assign_work_unit(self, node: WorkerController) -> None:
        """Give a worker a file of a folder that it has begun, or else one of a folder that nobody has, or else any."""
        begun = {worker: {_folder(scope) for scope in scopes} for worker, scopes in self.assigned_work.items()}
        by_anybody = set().union(*begun.values())

        def rank(scope: str) -> int:
            folder = _folder(scope)
            return 0 if folder in begun[node] else 1 if folder not in by_anybody else 2

        self.workqueue.move_to_end(min(self.workqueue, key=rank), last=False)
        super()._assign_work_unit(node)


def _folder(scope: str) -> str:
    return scope.rpartition("/")[0] if scope.endswith(".py") else scope


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    """Replace what `--dist loadfile` means; it keeps the order, where xdist's begins with the files of the most tests."""
    config.option.loadscopereorder = False
    return _ByWhatIsShared(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage until all tests are known: they stay, and each look at all of them would be in vain."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Keep all that is there now out of garbage collections: each would take a quarter of a second of a processor."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def usual_recursion_limit() -> Iterator[None]:
    """Python's own limit: commands that other tests run in this process may have raised it for good."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(min(before, 1000))
    yield
    sys.setrecursionlimit(before)


@pytest.fixture
def node(tmp_path: Path) -> NodeOnDisk:
    """A node whose primary CNI has written its conflist."""
    on_disk = NodeOnDisk.make(tmp_path)
    (on_disk.conf / "10-primary.conflist").write_bytes(PRIMARY)
    return on_disk
