"""The plugin file on the node: the one of the image, byte for byte, executable, owned by root (F7, F10)."""

import os
import stat
from pathlib import Path

from installer.files import EXECUTABLE, Directory, digest, pieces
from installer.settings import PLUGIN

_Stamp = tuple[int, ...]


class PluginFile:
    """Compares the file in place with the image's; reads its 10 MB only when its inode may have changed."""

    def __init__(self, source: Path) -> None:
        """Take the image's file as what should be in place."""
        self._source = source
        self._wanted: tuple[_Stamp, str] | None = None
        self._verified: _Stamp | None = None

    @property
    def digest(self) -> str:
        """The SHA-256 that the file in place was found to have; empty before the first comparison."""
        return self._wanted[1] if self._wanted else ""

    def is_right(self, folder: Directory, *, thorough: bool) -> bool:
        """Tell whether the file in cniBinDir is as it should be.

        Args:
            folder: cniBinDir.
            thorough: read it, whatever its inode says.

        Raises:
            OSError: if one of the files cannot be read.
        """
        wanted = self._wanted_digest()
        seen = folder.stat(PLUGIN)
        if seen is None or not stat.S_ISREG(seen.st_mode):
            return False
        if (stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid) != EXECUTABLE:
            return False
        if thorough or _stamp(seen) != self._verified:
            if folder.digest(PLUGIN) != wanted:
                return False
            self._verified = _stamp(seen)
        return True

    def put(self, folder: Directory) -> None:
        """Put the file in place by a rename: the old one runs on where it runs, and none is missing in between (F7).

        Raises:
            OSError: if it cannot be read or written.
        """
        folder.write(PLUGIN, pieces(self._source), EXECUTABLE)

    def _wanted_digest(self) -> str:
        stamp = _stamp(self._source.stat())
        if self._wanted is None or self._wanted[0] != stamp:
            self._wanted = stamp, digest(self._source)
        return self._wanted[1]


def _stamp(seen: os.stat_result) -> _Stamp:
    return (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_mode)
