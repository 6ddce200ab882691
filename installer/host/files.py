"""Files on the node: read within bounds, their access, and the remedies of their errors."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

LARGEST = 1 << 20  # bytes: a conflist has some kilobytes
TEMPORARY = ".istio-cni-tmp"  # never .conf, .conflist or .json, which a runtime would read (F8)
MOST_LINKS = 40  # in one path, as the kernel has it
ASIDE = ".istio-cni-aside"  # likewise: a file that is exchanged with another, see `exchange`
PIECE = 1 << 20

READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

_REMEDIES = {
    errno.ENOENT: "create it, or correct the setting that names it",
    errno.ENOTDIR: "expected a directory: correct the setting that names it",
    errno.ENOSPC: "free some space on the node's disk",
    errno.EDQUOT: "free some space on the node's disk",
    errno.EROFS: "mount it writable into the agent's container",
    errno.EACCES: "the agent must run as root",
    errno.EPERM: "the agent must run as root, and the file must not be immutable (lsattr)",
    errno.EISDIR: "expected a file: delete the directory",
    errno.EIO: "the node's disk fails",
}


# Errors of the disk or the kernel rather than of one file, whose content is then not known.
OF_THE_NODE = (
    *(errno.EIO, errno.EREMOTEIO, errno.EUCLEAN, errno.EBADMSG, errno.ESTALE, errno.ETIMEDOUT),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR),
)


class UnreadableError(OSError):
    """A foreign file that cannot be read as a configuration; the message says why."""


class Access(NamedTuple):
    """The access to a file: permission bits, owner, group."""

    mode: int
    uid: int = 0
    gid: int = 0

    @classmethod
    def of(cls, info: os.stat_result) -> Self:
        """Read it from a stat(2) result."""
        return cls(stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid)


PRIVATE = Access(0o600)
EXECUTABLE = Access(0o755)


def within(root: Path, path: Path) -> Path:
    """Resolve a node path below the mount of the node's file system: absolute links stay below it.

    `root` is where it is mounted; `path` is absolute, on the node.

    Raises:
        OSError: if links form a loop.
    """
    found, pending, links = root, [*reversed(path.parts[1:])], 0
    while pending:
        name = pending.pop()
        if name == "..":
            found = root if found == root else found.parent
        elif (found / name).is_symlink():
            links += 1
            if links > MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            target = (found / name).readlink()
            found = root if target.is_absolute() else found
            pending += reversed(target.parts[1:] if target.is_absolute() else target.parts)
        else:
            found /= name
    return found


def explain(error: OSError) -> str:
    """Describe an error and its remedy, for /readyz, the log and the terminal."""
    remedy = _REMEDIES.get(error.errno or 0)
    message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return f"{message}; {remedy}" if remedy else message


def is_temporary(name: str) -> bool:
    """Whether a file belongs to an unfinished change of an agent."""
    return name.startswith(".") and name.endswith((TEMPORARY, ASIDE))


def digest(path: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pieces(path: Path) -> Iterator[bytes]:
    """Read a large file piece by piece."""
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE):
            yield piece


def open_small(name: str, folder_fd: int, *, follow: bool = False) -> int:
    """Open a file of a directory for reading, if it is a small regular one.

    With `follow` it may be a symbolic link.

    Raises:
        UnreadableError: if it is not one.
        OSError: if it cannot be opened.
    """
    info = os.stat(name, dir_fd=folder_fd, follow_symlinks=follow)
    _require_regular(info)  # before the open: opening a device may have side effects
    fd = os.open(name, READ if follow else READ | os.O_NOFOLLOW, dir_fd=folder_fd)
    try:
        _require_regular(os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_small(fd: int) -> bytes:
    """Read a whole file from its beginning; raises UnreadableError if it is larger than `LARGEST`."""
    parts, size = [], 0
    while part := os.pread(fd, PIECE, size):
        parts.append(part)
        size += len(part)
        if size > LARGEST:  # it grew while we read
            raise UnreadableError(f"more than {LARGEST} bytes")
    return b"".join(parts)


def _require_regular(info: os.stat_result) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise UnreadableError(f"not a regular file ({stat.filemode(info.st_mode)})")
    if info.st_size > LARGEST:
        raise UnreadableError(f"{info.st_size} bytes, expected at most {LARGEST}")
