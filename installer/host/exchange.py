"""Changing files that other programs write too, so that none of their contents is lost (F33).

A primary CNI may write its conflist, in place or by rename, at any moment: also between our last look at it and our rename,
which would then replace a content that nobody has read. So the new file and the one in place change places in one step
(renameat2(2), RENAME_EXCHANGE). What came out is compared, and goes back if it is not what was planned upon. Likewise, what
this second exchange takes out must be what the first one put in, or it is newer. No check and its act have a disk between them.

The file that was taken out keeps a name until nobody needs it. By digests, the name says what was planned upon and what was
put in place, so that whoever comes after a killed agent knows what to do with it (`settle`, F8).

Where the file system cannot exchange, the file is compared right before an ordinary rename.
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
    from installer.host.files import Directory

_NOREPLACE, _EXCHANGE = 1, 2  # renameat2(2)
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)  # file system, kernel, seccomp filter
_NOTHING = "none"  # in place of a digest: there was no file, or there is to be none
_ASIDE = re.compile(rf"\.(.+)\.([0-9a-f]{{16}}|{_NOTHING})-([0-9a-f]{{16}}|{_NOTHING}){re.escape(ASIDE)}")
_ROUNDS = 100  # of writes by others, each within microseconds of the one before
_KEPT = 60.0  # seconds for which a file that was taken out is kept while somebody has it open for writing

_log = logging.getLogger(__name__)


class OutdatedError(Exception):
    """Somebody has changed a file since the steps were planned: they must be planned anew."""


class BusyError(OutdatedError):
    """Somebody has the file open for writing: what it is going to hold is not known yet."""


class _Aside(NamedTuple):
    """A file that stands aside: the one that is about to be put in place, or that was taken out of it.

    Attributes:
        name: of the file in whose place it goes or was.
        seen: the digest of what that held when the change was planned.
        wanted: the digest of what it is to hold.
    """

    name: str
    seen: str
    wanted: str

    def __str__(self) -> str:
        return f".{self.name}.{self.seen}-{self.wanted}{ASIDE}"


def is_aside(name: str) -> bool:
    """Tell whether a file is one that a change has put aside."""
    return _ASIDE.fullmatch(name) is not None


def write(
    folder: Directory,
    name: str,
    content: bytes,
    seen: bytes | None,
    like: Inode | None,
    *,
    source: tuple[str, bytes] | None = None,
    patient: bool = True,
) -> None:
    """Put a content into a file, durably, with owner, permissions and attributes of another.

    Args:
        folder: where.
        name: of the file.
        content: what it is to hold.
        seen: what it holds as far as is known; None: it is not there, or cannot be read.
        like: whose owner, permissions and attributes it gets if there is none in place.
        source: another file from which the content is made, and what that held.
        patient: change nothing as long as another program has the file open for writing.

    Raises:
        BusyError: if one has.
        OutdatedError: if the file is not as it was seen, or its source is not; it stays as it is.
        OSError: if it could not be written.
    """
    with folder.naming(name):
        if seen is None:
            _create(folder, name, content, like, source)
            return
        with _held(folder, name, seen, patient=patient) as there:
            there.release()  # nobody is to wait for our disk
            aside = _prepare(folder, _Aside(name, _digest(seen), _digest(content)), content, there)
            with Inode(folder, aside) as ours:
                try:
                    _require_source(folder, source)
                    _require(folder, there, name, seen, patient=patient)
                    by_exchange = _exchange_or_replace(folder, aside, name)
                except BaseException:
                    _unlink(folder, aside)
                    raise
                if by_exchange:
                    _finish(folder, there, aside, name, ours, patient=patient)
                else:
                    folder.sync()


def delete(folder: Directory, name: str, seen: bytes, *, patient: bool = True) -> None:
    """Take a file away, durably, as long as it holds what was seen.

    Raises:
        BusyError: if another program has it open for writing.
        OutdatedError: if the file is not as it was seen; it stays.
        OSError: if it could not be taken away.
    """
    with folder.naming(name), _held(folder, name, seen, patient=patient) as there:
        aside = str(_Aside(name, _digest(seen), _NOTHING))
        os.rename(name, aside, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
        _finish(folder, there, aside, name, None, patient=patient)


def settle(folder: Directory, *, patient: bool = True) -> list[str]:
    """Do away with what stands aside: of a killed agent, or open for writing when it was taken out.

    A content that nobody has planned upon goes back in its place, unless there is a newer one.

    Args:
        folder: where.
        patient: leave what another program still has open for writing.

    Returns:
        The names of what was deleted.
    """
    asides = [_Aside(*match.groups()) for match in map(_ASIDE.fullmatch, folder.names()) if match]
    return [str(aside) for aside in asides if _settle(folder, aside, patient=patient)]


def _create(folder: Directory, name: str, content: bytes, like: Inode | None, source: tuple[str, bytes] | None) -> None:
    """Make a file where there is none, or one that nobody can read."""
    aside = _prepare(folder, _Aside(name, _NOTHING, _digest(content)), content, like)
    try:
        _require_source(folder, source)
        try:
            _rename_to_free(folder, aside, name)
        except FileExistsError:
            if there := _open(folder, name):
                there.close()
                raise _outdated(folder, name) from None
            os.replace(aside, name, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
    except BaseException:
        _unlink(folder, aside)
        raise
    folder.sync()


def _prepare(folder: Directory, aside: _Aside, content: bytes, like: Inode | None) -> str:
    """Have the new file on the disk, whole, under the name that says what it is for."""
    attributes = like.attributes() if like else {}
    temporary = folder.prepare(aside.name, (content,), like.access if like else PRIVATE, attributes)
    os.rename(temporary, str(aside), src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
    return str(aside)


def _held(folder: Directory, name: str, seen: bytes, *, patient: bool) -> Inode:
    """Open a file that is as it was seen."""
    try:
        there = Inode(folder, name)
    except (FileNotFoundError, UnreadableError):
        raise _outdated(folder, name) from None
    try:
        _require(folder, there, name, seen, patient=patient)
    except BaseException:
        there.close()
        raise
    return there


def _require(folder: Directory, there: Inode, name: str, seen: bytes, *, patient: bool) -> None:
    """Make sure that a file is what its name means, as it was seen, and in nobody's hand."""
    if there.is_being_written() and patient:
        raise BusyError(f"{folder.path / name}: saw another program that has it open for writing, expected none")
    if not (there.content == seen and there.is_at(name) and there.is_unchanged()):
        raise _outdated(folder, name)


def _require_source(folder: Directory, source: tuple[str, bytes] | None) -> None:
    """Make sure that what a file is made from is as it was seen."""
    if source is None:
        return
    name, content = source
    with suppress(FileNotFoundError, UnreadableError):
        if folder.read(name) == content:
            return
    raise _outdated(folder, name)


def _exchange_or_replace(folder: Directory, aside: str, name: str) -> bool:
    """Put the new file in place; tell whether the old one stands aside now, or is gone."""
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


def _finish(folder: Directory, there: Inode, aside: str, name: str, ours: Inode | None, *, patient: bool) -> None:
    """Delete what was taken out if it is what was planned upon, and put it back if not.

    It is looked at twice: at once, and when the change is on the disk, by when whoever was about to open it has come.
    """
    busy = False
    for settled in (False, True):
        busy = there.is_being_written()
        if (busy and patient) or not (there.is_at(aside) and there.is_unchanged()):
            _put_back(folder, aside, name, ours)
            there.release()
            folder.sync()
            raise _outdated(folder, name)
        if not settled:
            folder.sync()
    if not busy:  # or else it stands aside until it is closed: see `settle`
        _unlink(folder, aside)


def _put_back(folder: Directory, aside: str, name: str, ours: Inode | None) -> None:
    """Put a file that was taken out back in its place, or the newest of those that came there since.

    Args:
        folder: where.
        aside: the name of the file that was taken out.
        name: the name of its place.
        ours: what was put there instead; None: nothing.
    """
    if ours is None:
        try:
            _rename_to_free(folder, aside, name)
        except FileExistsError:  # made anew since
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
    left = _open(folder, str(aside))
    if left is None:  # nothing that anybody could read
        _unlink(folder, str(aside))
        return True
    with left:
        kept = patient and time.time() < left.renamed() + _KEPT
        if kept and left.is_being_written():
            return False
        if _digest(left.content) in (aside.seen, aside.wanted):
            _unlink(folder, str(aside))
            return True
        there = _open(folder, aside.name)
        if there is None and aside.wanted == _NOTHING:
            _put_back(folder, str(aside), aside.name, None)
        elif there is not None:
            with there:
                if _digest(there.content) != aside.wanted and there.modified() >= left.modified():
                    _unlink(folder, str(aside))
                    return True
                _put_back(folder, str(aside), aside.name, there)
        else:  # deleted since
            _unlink(folder, str(aside))
            return True
    folder.sync()
    _log.warning("put back: another program wrote it as it was replaced", extra={"file": str(folder.path / aside.name)})
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
    """Rename, but to a free name alone.

    Raises:
        FileExistsError: if it is not free.
    """
    try:
        renameat2(folder, old, new, _NOREPLACE)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        os.link(old, new, src_dir_fd=folder.fd, dst_dir_fd=folder.fd, follow_symlinks=False)
        os.unlink(old, dir_fd=folder.fd)


def renameat2(folder: Directory, old: str, new: str, flags: int) -> None:
    """Call what Python has no name for, within a directory."""
    if _libc().renameat2(folder.fd, os.fsencode(old), folder.fd, os.fsencode(new), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(folder.path / new))


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _outdated(folder: Directory, name: str) -> OutdatedError:
    return OutdatedError(f"{folder.path / name}: changed by another program at this moment")
