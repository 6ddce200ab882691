"""The watcher alone: which changes wake, and which do not."""

from __future__ import annotations

import os
import resource
import threading
from inspect import signature
from typing import TYPE_CHECKING

import pytest
from watchdog.observers import inotify_c as binding

from installer.agent import reconciler
from installer.host import conf_dir, inotify
from installer.host.inotify import Watcher
from tests.support.ondisk import PRIMARY, SLOWEST, NodeOnDisk, open_descriptors, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from watchdog.observers.inotify_c import InotifyFD

pytestmark = pytest.mark.kernel


def test_watchdog_has_the_bindings_that_the_watcher_uses() -> None:
    """The interface is undocumented (see `installer.host.inotify`): new releases of watchdog must pass this."""
    assert list(signature(binding.InotifyFD.add_callback).parameters) == ["self", "path", "mask", "callback", "id_"]
    assert list(signature(binding.InotifyFD.remove_callbacks).parameters) == ["self", "callbacks"]
    assert {"start", "stop", "join"} <= {*dir(binding.InotifyFD)}
    assert {"name", "is_create", "is_directory"} <= {*dir(binding.InotifyEvent), *binding.InotifyEvent.__annotations__}
    assert {"on_event", "on_watch_deleted", "on_queue_overflow"} <= {*dir(binding.WatchCallback)}


class Watched:
    """A watcher of one directory, and how often it woke."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wakes = 0
        self._woken = threading.Event()
        self._last = threading.Event()
        self._before_last = 0
        self.watcher = Watcher({path: self._of_interest}, self._wake)
        assert self.watcher.refresh()

    def _of_interest(self, name: str) -> bool:
        if name == "last.conf":
            self._before_last = self.wakes
            self._last.set()
        return conf_dir.of_interest(name)

    def _wake(self, _: str) -> None:
        self.wakes += 1
        self._woken.set()

    def woken(self) -> bool:
        """Wait for the next wake."""
        woken = self._woken.wait(SLOWEST)
        self._woken.clear()
        return woken

    def wakes_so_far(self) -> int:
        """Count all wakes so far: events arrive in order, and this causes a last one."""
        (self.path / "last.conf").mkdir()
        assert self._last.wait(SLOWEST)
        assert self.woken()
        return self._before_last


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    path = tmp_path / "etc" / "net.d"
    path.mkdir(parents=True)
    (path / "10-a.conf").touch()
    made = Watched(path)
    yield made
    made.watcher.close()


def written(path: Path) -> None:
    path.write_bytes(b"x")


def linked(path: Path) -> None:
    path.with_name("20-b.conf").hardlink_to(path)


def linked_symbolically(path: Path) -> None:
    path.with_name("20-b.conf").symlink_to(path)


def moved_out(path: Path) -> None:
    path.rename(path.parent.parent / "10-a.conf")


def deleted(path: Path) -> None:
    path.unlink()


def mode_changed(path: Path) -> None:
    path.chmod(0o700)


def folder_renamed(path: Path) -> None:
    path.parent.rename(path.parent.with_name("old"))


def folder_above_renamed(path: Path) -> None:
    path.parents[1].rename(path.parents[1].with_name("old"))


@pytest.mark.parametrize(
    "change",
    [
        written,
        linked,
        linked_symbolically,
        moved_out,
        deleted,
        mode_changed,
        folder_renamed,
        folder_above_renamed,
    ],
)
def test_a_change_wakes_the_waiter(watched: Watched, change: Callable[[Path], None]) -> None:
    change(watched.path / "10-a.conf")
    assert watched.woken()


def test_reads_other_files_and_unfinished_writes_wake_nobody(watched: Watched) -> None:
    (watched.path / "10-a.conf").read_bytes()
    list(watched.path.iterdir())
    (watched.path / "notes.txt").write_text("x")
    (watched.path / ".10-a.conf.istio-cni-tmp").write_text("x")
    (watched.path.parent / "beside").mkdir()
    with (watched.path / "30-c.conf").open("wb") as unfinished:
        unfinished.write(b"half")
        unfinished.flush()
        assert watched.wakes_so_far() == 0
    assert watched.woken()


def test_a_missing_directory_is_awaited_in_its_parents(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "etc" / "cni" / "net.d")
    for path in (tmp_path / "etc", tmp_path / "etc" / "cni", tmp_path / "etc" / "cni" / "net.d"):
        path.mkdir()
        assert watched.woken()
        watched.watcher.refresh()
    (watched.path / "10-a.conf").write_bytes(b"x")
    assert watched.woken()
    watched.watcher.close()


@pytest.fixture
def _no_inotify(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> InotifyFD:
        raise OSError(24, "inotify instance limit reached")

    monkeypatch.setattr(inotify, "InotifyFD", none_left)


@pytest.mark.usefixtures("_no_inotify")
async def test_without_inotify_the_directories_are_polled(node: NodeOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "UNWATCHED_RESYNC", 0.05)
    async with running(node.settings) as run:
        await run.until(lambda state: state.installed)
        (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
        await run.until(lambda state: state.installed and state.repairs == 1)


@pytest.mark.usefixtures("_no_inotify")
async def test_the_watchers_own_changes_are_checked_again_at_once(
    node: NodeOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "UNWATCHED_RESYNC", 10 * SLOWEST)
    async with running(node.settings) as run:
        await run.until(lambda state: state.installed)


def test_a_process_out_of_descriptors_leaks_none(tmp_path: Path) -> None:
    watcher = inotify.Watcher({tmp_path: lambda _: True}, lambda _: None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = open_descriptors()
    highest, taken = max(int(number) for number in os.listdir("/proc/self/fd")), [-1]  # noqa: PTH208
    while taken[-1] <= highest:  # so that the limit leaves no gap below it
        taken.append(os.open("/dev/null", os.O_RDONLY))
    try:
        for room in range(6):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1 + room, hard))
            watching = watcher.refresh()
        assert watching
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken[1:]:
            os.close(descriptor)
        watcher.close()
    assert open_descriptors() == before
