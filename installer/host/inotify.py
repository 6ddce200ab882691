"""Watching directories, so that the reconciler checks again as soon as something in them has changed (D8).

This uses watchdog's inotify binding (`InotifyFD`) and not its documented `Observer`, for two reasons. The observer delays a
rename out of a directory, and all later events, by half a second, to find the matching event. And it passes each
event through three threads, whereas the binding calls back from the one that reads it. As the binding is no documented
interface, `pyproject.toml` pins watchdog's minor release, and tests/host/test_inotify.py checks what is used of it.

An event only says "check again". Reads cause no event here, otherwise our own would wake us for ever.
"""

import logging
import os
import select
import stat
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyEvent, InotifyFD, Mask, WatchDescriptor

from installer.host import unanswered

_log = logging.getLogger(__name__)

# The path of a directory: any part may be created, deleted, renamed or replaced.
_NAMES = Mask(
    InotifyConstants.IN_CREATE
    | InotifyConstants.IN_MOVE
    | InotifyConstants.IN_DELETE
    | InotifyConstants.IN_DELETE_SELF
    | InotifyConstants.IN_MOVE_SELF
    | InotifyConstants.IN_ONLYDIR
    | InotifyConstants.IN_MASK_ADD  # two watches of ours may share a directory
)
# Complete writes only: a file written in place is checked when it is closed, not half-written (F14).
_CONTENTS = Mask(_NAMES | InotifyConstants.IN_CLOSE_WRITE | InotifyConstants.IN_ATTRIB)


class Watcher:
    """Watches directories, any part of whose paths may be created, deleted, renamed, replaced or mounted over.

    Each `refresh` retries what failed for lack of inotify instances, watches or open files.
    """

    def __init__(
        self,
        directories: Mapping[Path, Callable[[str], bool]],
        wake: Callable[[str], None],
        on_node: Mapping[Path, Path] | None = None,
        *,
        sees_mounts: bool = True,
    ) -> None:
        """Prepare to watch; the first `refresh` begins.

        `directories` has for each a predicate of the relevant file names. `wake` is called for each change, from the
        watcher's own thread, with the name of what has changed in its directory; empty: unknown. `on_node` maps directories
        to their paths on the node, if different. Without `sees_mounts` what is mounted over them is noticed by the next
        `refresh`.
        """
        self._on_node = on_node or {}
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
        self._sees_mounts = sees_mounts
        self._missing = ""  # why not everything is watched, as last logged
        self._inotify: InotifyFD | None = None
        self._mounts: _Mounts | None = None

    def refresh(self) -> bool:
        """Watch the directories that the paths mean now. Call it before reading them, so that no change is missed.

        It works from the top down: anything created below a watched directory causes an event. It returns False if the node
        lacks resources for it now: changes may be missed.
        """
        missing = ""
        try:
            if self._sees_mounts and not self._mounts:
                self._mounts = _Mounts({each: self._on_node.get(each, each) for each in self._watches}, self._wake)
            self._inotify = self._inotify or _start_inotify()
            for path in sorted(self._watches):
                with unanswered.waiting_for(self._on_node.get(path, path)):
                    for watch in self._watches[path]:
                        watch.refresh(self._inotify)
        except OSError as error:
            missing = str(error)
        if bool(missing) != bool(self._missing):
            if missing:
                _log.error(
                    "cannot watch the node for changes, checking it every second or two: raise "
                    "fs.inotify.max_user_instances or max_user_watches, or the limit of open files",
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


def _start_inotify() -> InotifyFD:
    # Without a free descriptor for the third, it would keep the first two of its three open.
    with ExitStack() as room:
        for _ in range(3):
            room.callback(os.close, os.eventfd(0, os.EFD_CLOEXEC))
    inotify = InotifyFD()
    inotify.start()
    return inotify


class _Mounts(threading.Thread):
    """Detects mounts over directories, which inotify does not report: proc_pid_mountinfo(5), poll(2)."""

    def __init__(self, paths: Mapping[Path, Path], wake: Callable[[str], None]) -> None:
        """Begin; raises OSError if no further file can be opened. `paths` maps each to that on the node."""
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
        """Compare the directories behind the paths after each mount, remount or unmount anywhere."""
        poll = select.poll()
        poll.register(self._file, select.POLLPRI)
        poll.register(self._stopped, select.POLLIN)
        while self._stopped not in dict(poll.poll()):
            if (now := self._look()) != self._before:
                self._before = now
                self._wake("")
        os.close(self._file)
        os.close(self._stopped)

    def stop(self) -> None:
        """Have it end."""
        os.eventfd_write(self._stopped, 1)

    def _look(self) -> list[tuple[int, int, int] | None]:
        found = []
        for path, on_node in self._paths.items():
            work = unanswered.begin(on_node)  # a node mounts something many times a minute: without a context manager
            found.append(self._identify(path))
            unanswered.end(work)
        return found

    @staticmethod
    def _identify(path: Path) -> tuple[int, int, int] | None:
        """The identity of a directory, and whether it is writable."""
        try:
            info = path.stat()
            return info.st_dev, info.st_ino, os.statvfs(path).f_flag & os.ST_RDONLY
        except OSError:
            return None


class _Watch:
    """A watch on what a path means; watchdog calls it back from the thread that reads inotify."""

    def __init__(self, path: Path, mask: Mask, of_interest: Callable[[str], bool], wake: Callable[[str], None]) -> None:
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
                return  # deleted since: its parent has caused an event
            self._watched = descriptor, now

    def _identity(self) -> tuple[int, int] | None:
        try:
            info = self._path.stat()
        except OSError:
            return None
        return (info.st_dev, info.st_ino) if stat.S_ISDIR(info.st_mode) else None

    def on_event(self, event: InotifyEvent) -> None:
        name = os.fsdecode(event.name)
        if name and not self._of_interest(name):
            return
        if event.is_create and not event.is_directory and not self._is_link(name):
            return  # still being written: checked when it is closed
        self._wake(name)

    def _is_link(self, name: str) -> bool:
        """Whether a new file is complete from the start: a symbolic or hard link is never closed."""
        try:
            info = (self._path / name).lstat()
        except OSError:
            return False
        return stat.S_ISLNK(info.st_mode) or info.st_nlink > 1

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        watched = self._watched
        if watched and watched[0] == wd:
            self._watched = None
        self._wake("")

    def on_queue_overflow(self) -> None:
        self._wake("")
