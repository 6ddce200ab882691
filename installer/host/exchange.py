"""Changing files that other programs write too, so that none of their contents is lost (F33).

A primary CNI may write its conflist, in place or with a rename, at any moment: even between our last check and our rename,
which would then replace unread content. So the new file and the one in place are exchanged atomically
(renameat2(2), RENAME_EXCHANGE). The replaced file is compared, and exchanged back if it is not the expected one. This second
exchange must take out the file that the first one put in; anything else is newer, and goes back in turn. No disk write comes
between a check and its action.

The replaced file keeps a name until nobody needs it. The name holds the digests of the expected content and of the
new one, so that the successor of a killed agent knows what to do with it (`settle`, F8).

If the file system does not support the exchange, the file is compared right before an ordinary rename.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import logging
import os
import re
import time
from contextlib import ExitStack, suppress
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from installer.host.files import ASIDE, PRIVATE, UnreadableError
from installer.host.inode import Inode

if TYPE_CHECKING:
    from installer.host.directory import Directory

_NOREPLACE, _EXCHANGE = 1, 2  # renameat2(2)
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)  # file system, kernel, seccomp filter
_NOTHING = "none"  # instead of a digest: there was no file, or the file should be deleted
_ASIDE = re.compile(rf"\.(.+)\.([0-9a-f]{{16}}|{_NOTHING})-([0-9a-f]{{16}}|{_NOTHING}){re.escape(ASIDE)}")
_ROUNDS = 100  # consecutive foreign writes, each within microseconds of the last
_KEPT = 60.0  # seconds to keep a replaced file while somebody has it open for writing

_log = logging.getLogger(__name__)


class OutdatedError(Exception):
    """A file has changed since the steps were planned: they must be planned again."""


class BusyError(OutdatedError):
    """Somebody has the file open for writing: its next content is unknown."""


class _Aside(NamedTuple):
    """A file set aside: one about to be put in place, or one that was replaced.

    Attributes:
        name: the file whose place it takes or had.
        expected: the digest of that file's content when the change was planned.
        wanted: the digest of its new content.
    """

    name: str
    expected: str
    wanted: str

    def __str__(self) -> str:
        return f".{self.name}.{self.expected}-{self.wanted}{ASIDE}"


def is_aside(name: str) -> bool:
    """Whether a file was set aside by a change."""
    return _ASIDE.fullmatch(name) is not None


def write(
    folder: Directory,
    name: str,
    content: bytes,
    expected: bytes | None,
    like: Inode | None,
    *,
    source: tuple[str, bytes] | None = None,
    patient: bool = True,
) -> None:
    """Write a content into a file, durably, with the owner, permissions and attributes of another.

    `expected` is its last known content; None: it does not exist or cannot be read. A new file gets the owner, permissions
    and attributes of `like`. `source` is another file that the content derives from, with its content. If `patient`,
    nothing changes while another program has the file open for writing.

    Raises:
        BusyError: if another program has it open.
        OutdatedError: if the file or its source has changed; the file stays unchanged.
        OSError: if it could not be written.
    """
    with folder.naming(name):
        if expected is None:
            _create(folder, name, content, like, source)
            return
        with _open_expected(folder, name, expected, patient=patient) as current:
            current.release()  # let nobody wait for our disk
            aside = _prepare(folder, _Aside(name, _digest(expected), _digest(content)), content, current)
            with Inode(folder, aside) as ours:
                try:
                    _require_source(folder, source)
                    _require(folder, current, name, expected, patient=patient)
                    by_exchange = _exchange_or_replace(folder, aside, name)
                except BaseException:
                    _unlink(folder, aside)
                    raise
                if by_exchange:
                    _finish(folder, current, aside, name, ours, patient=patient)
                else:
                    folder.sync()


def delete(folder: Directory, name: str, expected: bytes, *, patient: bool = True) -> None:
    """Delete a file, durably, provided that it holds the expected content.

    Raises:
        BusyError: if another program has it open for writing.
        OutdatedError: if the file has changed; it stays.
        OSError: if it could not be deleted.
    """
    with folder.naming(name), _open_expected(folder, name, expected, patient=patient) as current:
        aside = str(_Aside(name, _digest(expected), _NOTHING))
        os.rename(name, aside, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
        _finish(folder, current, aside, name, None, patient=patient)


def settle(folder: Directory, *, patient: bool = True) -> list[str]:
    """Resolve files set aside, by a killed agent or because they were open for writing when replaced; name what was deleted.

    Unexpected content is put back in its place, unless there is a newer one. If `patient`, what another program still has
    open for writing is left.
    """
    asides = [_Aside(*match.groups()) for match in map(_ASIDE.fullmatch, folder.names()) if match]
    return [str(aside) for aside in asides if _settle(folder, aside, patient=patient)]


def _create(folder: Directory, name: str, content: bytes, like: Inode | None, source: tuple[str, bytes] | None) -> None:
    """Create a file where there is none, or only an unreadable one."""
    aside = _prepare(folder, _Aside(name, _NOTHING, _digest(content)), content, like)
    try:
        _require_source(folder, source)
        try:
            _rename_to_free(folder, aside, name)
        except FileExistsError:
            if current := _open(folder, name):
                current.close()
                raise _outdated(folder, name) from None
            os.replace(aside, name, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
    except BaseException:
        _unlink(folder, aside)
        raise
    folder.sync()


def _prepare(folder: Directory, aside: _Aside, content: bytes, like: Inode | None) -> str:
    """Write the complete new file to the disk, under the name that records its purpose."""
    attributes = like.attributes() if like else {}
    temporary = folder.prepare(aside.name, (content,), like.access if like else PRIVATE, attributes)
    os.rename(temporary, str(aside), src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
    return str(aside)


def _open_expected(folder: Directory, name: str, expected: bytes, *, patient: bool) -> Inode:
    """Open a file that still has the expected content."""
    try:
        current = Inode(folder, name)
    except (FileNotFoundError, UnreadableError):
        raise _outdated(folder, name) from None
    try:
        _require(folder, current, name, expected, patient=patient)
    except BaseException:
        current.close()
        raise
    return current


def _require(folder: Directory, current: Inode, name: str, expected: bytes, *, patient: bool) -> None:
    """Check that the name still means this file, that it is unchanged, and that nobody has it open for writing."""
    if current.is_being_written() and patient:
        raise BusyError(f"{folder.path / name}: saw another program that has it open for writing, expected none")
    if not (current.content == expected and current.is_at(name) and current.is_unchanged()):
        raise _outdated(folder, name)


def _require_source(folder: Directory, source: tuple[str, bytes] | None) -> None:
    """Check that the source of a file is unchanged."""
    if source is None:
        return
    name, content = source
    with suppress(FileNotFoundError, UnreadableError):
        if folder.read(name) == content:
            return
    raise _outdated(folder, name)


def _exchange_or_replace(folder: Directory, aside: str, name: str) -> bool:
    """Put the new file in place; return whether the old one is now set aside, rather than gone."""
    try:
        renameat2(folder, aside, name, _EXCHANGE)
    except FileNotFoundError:
        raise _outdated(folder, name) from None
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        os.replace(aside, name, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
        return False
    return True


def _finish(folder: Directory, replaced: Inode, aside: str, name: str, ours: Inode | None, *, patient: bool) -> None:
    """Delete the replaced file if it is the expected one; otherwise put it back.

    It is checked twice: at once, and once the change is on the disk, by when a concurrent writer has opened it.
    """
    busy = False
    for settled in (False, True):
        busy = replaced.is_being_written()
        if (busy and patient) or not (replaced.is_at(aside) and replaced.is_unchanged()):
            _put_back(folder, aside, name, ours)
            replaced.release()
            folder.sync()
            raise _outdated(folder, name)
        if not settled:
            folder.sync()
    if not busy:  # otherwise it stays aside until it is closed: see `settle`
        _unlink(folder, aside)


def _put_back(folder: Directory, aside: str, name: str, ours: Inode | None) -> None:
    """Put a replaced file back in its place, or the newest of those that arrived there since.

    `ours` is our content in its place; None: nothing.
    """
    if ours is None:
        try:
            _rename_to_free(folder, aside, name)
        except FileExistsError:  # created again since
            _unlink(folder, aside)
        return
    put: Inode | None = ours
    with ExitStack() as opened:
        for _ in range(_ROUNDS):
            back = _open(folder, aside)
            if back:
                opened.enter_context(back)
            try:
                renameat2(folder, aside, name, _EXCHANGE)
            except FileNotFoundError:  # deleted since
                _unlink(folder, aside)
                return
            if put is None or (put.is_at(aside) and not put.is_being_written() and put.is_unchanged()):
                _unlink(folder, aside)
                return
            put = back


def _settle(folder: Directory, aside: _Aside, *, patient: bool) -> bool:
    replaced = _open(folder, str(aside))
    if replaced is None:  # nothing readable
        _unlink(folder, str(aside))
        return True
    with replaced:
        is_recent = patient and time.time() < replaced.renamed() + _KEPT
        if is_recent and replaced.is_being_written():
            return False
        if _digest(replaced.content) in (aside.expected, aside.wanted):
            _unlink(folder, str(aside))
            return True
        current = _open(folder, aside.name)
        if current is None and aside.wanted == _NOTHING:
            _put_back(folder, str(aside), aside.name, None)
        elif current is not None:
            with current:
                if _digest(current.content) != aside.wanted and current.modified() >= replaced.modified():
                    _unlink(folder, str(aside))
                    return True
                _put_back(folder, str(aside), aside.name, current)
        else:  # deleted since
            _unlink(folder, str(aside))
            return True
    folder.sync()
    _log.warning(
        "restored: another program wrote the file while it was being replaced",
        extra={"file": str(folder.path / aside.name)},
    )
    return False


def _open(folder: Directory, name: str) -> Inode | None:
    try:
        return Inode(folder, name)
    except (FileNotFoundError, UnreadableError):
        return None


def _unlink(folder: Directory, name: str) -> None:
    with suppress(OSError):  # `settle` does it later
        os.unlink(name, dir_fd=folder.fd)


def _rename_to_free(folder: Directory, old: str, new: str) -> None:
    """Rename, but only to a free name; raises FileExistsError if it is not free."""
    try:
        renameat2(folder, old, new, _NOREPLACE)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        os.link(old, new, src_dir_fd=folder.fd, dst_dir_fd=folder.fd, follow_symlinks=False)
        os.unlink(old, dir_fd=folder.fd)


def renameat2(folder: Directory, old: str, new: str, flags: int) -> None:
    """Rename within a directory, with flags that Python does not offer."""
    if _libc().renameat2(folder.fd, os.fsencode(old), folder.fd, os.fsencode(new), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(folder.path / new))


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _outdated(folder: Directory, name: str) -> OutdatedError:
    return OutdatedError(f"{folder.path / name}: changed by another program meanwhile")
