"""Watching directories, so that the reconciler looks again as soon as something there has changed (D8).

This stands on watchdog's inotify binding (`InotifyFD`) and not on its `Observer`, for two reasons. The observer holds a
rename out of a directory, and all that comes after it, for half a second, to see whether it can pair it. And it hands
each event through three threads, where the binding calls back from the one that reads it.

An event says "look again" and no more. Reads make no event here, or our own would wake us for ever.
"""

import logging
import os
import stat
from collections.abc import Callable, Mapping
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
    """Watches directories that may come, go, be renamed or be replaced, at any height of their paths.

    A mount over a directory makes no event: `refresh` notices it, at the next resync at the latest.
    """

    def __init__(self, directories: Mapping[Path, Callable[[str], bool]], wake: Callable[[], None]) -> None:
        """Prepare to watch; the first `refresh` begins.

        Args:
            directories: for each, tells which names of files are of interest.
            wake: called for each change, from a thread of the watcher's own.

        Raises:
            OSError: if the node has no inotify instance left (fs.inotify.max_user_instances).
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
        self._warned = ""
        self._inotify = InotifyFD()
        self._inotify.start()

    def refresh(self) -> bool:
        """Watch what the paths mean now. Called before the directories are read, so that no change is missed.

        From the top downwards: what comes into being below a directory that is watched already makes an event.

        Returns:
            False if the node has no inotify watch left (fs.inotify.max_user_watches): changes may be missed.
        """
        try:
            for path in sorted(self._watches):
                for watch in self._watches[path]:
                    watch.refresh(self._inotify)
        except OSError as error:
            if str(error) != self._warned:
                self._warned = str(error)
                _log.error("cannot watch the node for changes", extra={"reason": self._warned})
            return False
        return True

    def close(self) -> None:
        """Stop watching."""
        self._inotify.stop()
        self._inotify.join()


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
