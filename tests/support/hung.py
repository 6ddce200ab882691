"""A file system that does not answer: FUSE that nobody serves, which waits for its server for ever."""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def hung(path: Path) -> Iterator[None]:
    """Mount it over a directory for the time of a block; whoever waits there then gets an error.

    Raises:
        OSError: if the kernel refuses.
    """
    server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
        _call("mount", b"hung", os.fsencode(path), b"fuse", 0, options)
        try:
            yield
        finally:
            _call("umount2", os.fsencode(path), MNT_DETACH)
    finally:
        os.close(server)


def _call(name: str, *arguments: bytes | int) -> None:
    if getattr(_libc, name)(*arguments):
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
