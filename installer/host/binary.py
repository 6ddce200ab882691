"""The plugin file on the node: the one of the image, byte for byte, owned by root, and able to run there (F7, F10, F41)."""

import os
import stat
from pathlib import Path

from installer.config.settings import PLUGIN
from installer.host.directory import Directory
from installer.host.files import EXECUTABLE, Access, digest, pieces
from installer.host.trial import NotExecutableError, is_noexec, try_out

_Stamp = tuple[int, ...]
_Key = tuple[_Stamp, bool]  # and whether it is mounted noexec


class PluginFile:
    """Compares the file in place with the image's; reads its 10 MB only when its inode may have changed."""

    def __init__(self, source: Path) -> None:
        """Use the image's file as the desired one."""
        self._source = source
        self._wanted: tuple[_Stamp, str] | None = None
        self._verified: _Stamp | None = None
        self._tried: _Key | None = None  # the file whose trial result is known
        self._fault: NotExecutableError | None = None  # the result

    @property
    def digest(self) -> str:
        """The SHA-256 of the installed file; empty before the first comparison."""
        return self._wanted[1] if self._wanted else ""

    def is_right(self, folder: Directory, *, full: bool) -> bool:
        """Whether the file in cniBinDir is the desired one.

        Args:
            folder: cniBinDir.
            full: read it even if its inode is unchanged.

        Raises:
            OSError: if one of the files cannot be read.
        """
        wanted = self._wanted_digest()
        seen = folder.stat(PLUGIN)
        if seen is None or not stat.S_ISREG(seen.st_mode):
            return False
        if (stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid) != EXECUTABLE:
            return False
        if full or _stamp(seen) != self._verified:
            if folder.digest(PLUGIN) != wanted:
                return False
            self._verified = _stamp(seen)
        return True

    def fault(self, folder: Directory) -> NotExecutableError | None:
        """Return why the installed file cannot be executed, if a trial or its mount has shown that."""
        return self._fault if self._key(folder) == self._tried else None

    def try_out(self, folder: Directory) -> None:
        """Check that the installed file can be executed; an unchanged one that can is run only once.

        Raises:
            NotExecutableError: if it cannot.
            OSError: if that cannot be determined now.
        """
        key = self._key(folder)
        if key == self._tried and self._fault is None:
            return
        self._tried = self._fault = None
        try:
            try_out(folder)
        except NotExecutableError as error:
            if not key[0] or self._key(folder) != key:
                return  # another program has changed it meanwhile: the next check repairs that
            self._tried, self._fault = key, error
            raise
        self._tried = key

    def put(self, folder: Directory) -> None:
        """Install the file with a rename: running copies continue, and the file is never missing (F7).

        Raises:
            NotExecutableError: if the file system stores no permissions, such as vfat; another write would change nothing.
            OSError: if it cannot be read or written.
        """
        folder.write(PLUGIN, pieces(self._source), EXECUTABLE)
        seen = folder.stat(PLUGIN)
        if seen and stat.S_ISREG(seen.st_mode) and Access.of(seen) != EXECUTABLE:
            mode, uid, gid = Access.of(seen)
            self._tried = self._key(folder)
            self._fault = NotExecutableError(
                f"{folder.path / PLUGIN}: saw mode {mode:o} of {uid}:{gid} after it was written, expected "
                f"{EXECUTABLE.mode:o} of 0:0: does the file system of cniBinDir keep permissions? Mount it with them, or set "
                "cniBinDir to another directory in which the runtime executes plugins"
            )
            raise self._fault

    @staticmethod
    def _key(folder: Directory) -> _Key:
        seen = folder.stat(PLUGIN)
        return (_stamp(seen) if seen else ()), is_noexec(folder)

    def _wanted_digest(self) -> str:
        stamp = _stamp(self._source.stat())
        if self._wanted is None or self._wanted[0] != stamp:
            self._wanted = stamp, digest(self._source)
        return self._wanted[1]


def _stamp(seen: os.stat_result) -> _Stamp:
    return (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_mode)
