"""Watching directories, so that the reconciler looks again as soon as something there has changed (D8).

This uses watchdog's inotify binding (`InotifyFD`) and not its documented `Observer`, for two reasons. The observer delays a
rename out of a directory, and all that comes after it, by half a second, to see whether it can pair it. And it hands each
event through three threads, where the binding calls back from the one that reads it. As the binding is no documented
interface, `pyproject.toml` pins watchdog's minor release, and tests/host/test_inotify.py holds what is used of it.

An event says "look again" and no more. Reads make no event here, or our own would wake us for ever.
"""

import logging
import os
import select
import stat
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from pathlib import Path

from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyEvent, InotifyFD, Mask, WatchDescriptor

_log = logging.getLogger(__name__)

# The way to a directory: it comes, goes, is renamed or replaced, at any height.
_NAMES = Mask(
    InotifyConstants.IN_CREATE
    | InotifyConstants.IN_MOVE
    | InotifyConstants.IN_DELETE
    | InotifyConstants.IN_DELETE_SELF
    | InotifyConstants.IN_MOVE_SELF
    | InotifyConstants.IN_ONLYDIR
    | InotifyConstants.IN_MASK_ADD  # two of ours may watch the same directory
)
# Whole writes alone: a file that is being written in place is looked at when it is closed, not half-written (F14).
_CONTENTS = Mask(_NAMES | InotifyConstants.IN_CLOSE_WRITE | InotifyConstants.IN_ATTRIB)


class Watcher:
    """Watches directories that may come, go, be renamed, be replaced or be mounted over, at any height of their paths.

    What the node has no room for now (inotify instances or watches, open files) is tried again by each `refresh`.
    """

    def __init__(self, directories: Mapping[Path, Callable[[str], bool]], wake: Callable[[], None]) -> None:
        """Prepare to watch; the first `refresh` begins.

        Args:
            directories: for each, tells which names of files are of interest.
            wake: called for each change, from a thread of the watcher's own.
        """
        self._watches: dict[Path, list[_Watch]] = {}
        for directory, of_interest in directories.items():
            for path in (directory, *directory.parents):
                below = directory.parts[len(path.parts) : len(path.parts) + 1]
                if path == directory:
                    watch = _Watch(path, _CONTENTS, of_interest, wake)
                else:
                    watch = _Watch(path, _NAMES, below.__contains__, wake)
                self._watches.setdefault(path, []).append(watch)
        self._wake = wake
        self._missing = ""  # why not all is watched, as it was told
        self._inotify: InotifyFD | None = None
        self._mounts: _Mounts | None = None

    def refresh(self) -> bool:
        """Watch what the paths mean now. Called before the directories are read, so that no change is missed.

        From the top downwards: what comes into being below a directory that is watched already makes an event.

        Returns:
            False if the node has no room for it now: changes may be missed.
        """
        missing = ""
        try:
            self._mounts = self._mounts or _Mounts([*self._watches], self._wake)
            self._inotify = self._inotify or _started()
            for path in sorted(self._watches):
                for watch in self._watches[path]:
                    watch.refresh(self._inotify)
        except OSError as error:
            missing = str(error)
        if bool(missing) != bool(self._missing):
            if missing:
                _log.error(
                    "cannot watch the node for changes, checking it every second: raise fs.inotify.max_user_instances or "
                    "max_user_watches, or the limit of open files",
                    extra={"reason": missing},
                )
            else:
                _log.warning("watching the node for changes again")
        self._missing = missing
        return not missing

    def close(self) -> None:
        """Stop watching."""
        for thread in (self._inotify, self._mounts):
            if thread:
                thread.stop()
                thread.join()


def _started() -> InotifyFD:
    with (
        ExitStack() as room
    ):  # it would keep what it has opened of its three descriptors when there is none for the next
        for _ in range(3):
            room.callback(os.close, os.eventfd(0, os.EFD_CLOEXEC))
    inotify = InotifyFD()
    inotify.start()
    return inotify


class _Mounts(threading.Thread):
    """Tells of mounts that change what directories are, of which inotify says nothing: proc_pid_mountinfo(5), poll(2)."""

    def __init__(self, paths: Collection[Path], wake: Callable[[], None]) -> None:
        """Begin.

        Raises:
            OSError: if no file can be opened any more.
        """
        super().__init__(name="mounts", daemon=True)
        self._paths = paths
        self._wake = wake
        self._file = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._stopped = os.eventfd(0, os.EFD_CLOEXEC)
        except OSError:
            os.close(self._file)
            raise
        self._before = self._look()
        self.start()

    def run(self) -> None:
        """Compare what the paths mean whenever something is mounted, remounted or unmounted anywhere."""
        poll = select.poll()
        poll.register(self._file, select.POLLPRI)
        poll.register(self._stopped, select.POLLIN)
        while self._stopped not in dict(poll.poll()):
            if (now := self._look()) != self._before:
                self._before = now
                self._wake()
        os.close(self._file)
        os.close(self._stopped)

    def stop(self) -> None:
        """Have it end."""
        os.eventfd_write(self._stopped, 1)

    def _look(self) -> list[tuple[int, int, int] | None]:
        return [self._meaning(path) for path in self._paths]

    @staticmethod
    def _meaning(path: Path) -> tuple[int, int, int] | None:
        """Which directory it is, and whether it can be written to."""
        try:
            seen = path.stat()
            return seen.st_dev, seen.st_ino, os.statvfs(path).f_flag & os.ST_RDONLY
        except OSError:
            return None


class _Watch:
    """A watch on what a path means; watchdog calls it back from the thread that reads inotify."""

    def __init__(self, path: Path, mask: Mask, of_interest: Callable[[str], bool], wake: Callable[[], None]) -> None:
        self._path = path
        self._mask = mask
        self._of_interest = of_interest
        self._wake = wake
        self._watched: tuple[WatchDescriptor, tuple[int, int]] | None = None

    def refresh(self, inotify: InotifyFD) -> None:
        now = self._identity()
        watched = self._watched
        if watched and watched[1] == now:
            return
        if watched:
            self._watched = None
            inotify.remove_callbacks([(watched[0], CallbackId(id(self)))])
        if now:
            try:
                descriptor = inotify.add_callback(os.fsencode(self._path), self._mask, self, CallbackId(id(self)))
            except (FileNotFoundError, NotADirectoryError):
                return  # gone since: the directory above has made an event
            self._watched = descriptor, now

    def _identity(self) -> tuple[int, int] | None:
        try:
            seen = self._path.stat()
        except OSError:
            return None
        return (seen.st_dev, seen.st_ino) if stat.S_ISDIR(seen.st_mode) else None

    def on_event(self, event: InotifyEvent) -> None:
        name = os.fsdecode(event.name)
        if name and not self._of_interest(name):
            return
        if event.is_create and not event.is_directory and not self._is_link(name):
            return  # it is being written: looked at when it is closed
        self._wake()

    def _is_link(self, name: str) -> bool:
        """Tell whether a new file came into being whole: a symbolic or a hard link is never closed."""
        try:
            seen = (self._path / name).lstat()
        except OSError:
            return False
        return stat.S_ISLNK(seen.st_mode) or seen.st_nlink > 1

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        watched = self._watched
        if watched and watched[0] == wd:
            self._watched = None
        self._wake()

    def on_queue_overflow(self) -> None:
        self._wake()
