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
        self._desired: tuple[_Stamp, str] | None = None
        self._verified: _Stamp | None = None
        self._tried: _Key | None = None  # the file whose trial result is known
        self._fault: NotExecutableError | None = None  # the result

    @property
    def digest(self) -> str:
        """The SHA-256 of the installed file; empty before the first comparison."""
        return self._desired[1] if self._desired else ""

    def is_right(self, folder: Directory, *, full: bool) -> bool:
        """Whether the file in cniBinDir is the desired one.

        If `full`, it is read even if its inode is unchanged.

        Raises:
            OSError: if one of the files cannot be read.
        """
        digest = self._source_digest()
        info = folder.stat(PLUGIN)
        if info is None or not stat.S_ISREG(info.st_mode):
            return False
        if (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) != EXECUTABLE:
            return False
        if full or _stamp(info) != self._verified:
            if folder.digest(PLUGIN) != digest:
                return False
            self._verified = _stamp(info)
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
        info = folder.stat(PLUGIN)
        if info and stat.S_ISREG(info.st_mode) and Access.of(info) != EXECUTABLE:
            mode, uid, gid = Access.of(info)
            self._tried = self._key(folder)
            self._fault = NotExecutableError(
                f"{folder.path / PLUGIN}: saw mode {mode:o} of {uid}:{gid} after it was written, expected "
                f"{EXECUTABLE.mode:o} of 0:0: does the file system of cniBinDir keep permissions? Mount it with them, or set "
                "cniBinDir to another directory in which the runtime executes plugins"
            )
            raise self._fault

    @staticmethod
    def _key(folder: Directory) -> _Key:
        info = folder.stat(PLUGIN)
        return (_stamp(info) if info else ()), is_noexec(folder)

    def _source_digest(self) -> str:
        stamp = _stamp(self._source.stat())
        if self._desired is None or self._desired[0] != stamp:
            self._desired = stamp, digest(self._source)
        return self._desired[1]


def _stamp(info: os.stat_result) -> _Stamp:
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_mode)
