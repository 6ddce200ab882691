"""The I/O of `installer.cniconfig.plan`: reads cniConfDir and applies the planned steps."""

import logging
import stat
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from installer.cniconfig.listing import AWAY, LIST, Listing
from installer.cniconfig.plan import Delete, Step, Write
from installer.config.value_types import CONF_SUFFIXES
from installer.host import exchange
from installer.host.directory import Directory
from installer.host.files import UnreadableError
from installer.host.inode import Inode

_log = logging.getLogger(__name__)


def of_interest(name: str) -> bool:
    """Whether a change of this file in cniConfDir requires another check."""
    return name.endswith(CONF_SUFFIXES) or exchange.is_aside(name)


def listing(folder: Directory) -> dict[str, bytes | OSError]:
    """Read the files that libcni reads, and those we renamed: name to content, or to the reason without one."""
    found: dict[str, bytes | OSError] = {}
    for name in folder.names():
        if name.endswith((*CONF_SUFFIXES, LIST + AWAY)) and not folder.is_directory(name):
            try:
                found[name] = folder.read(name)
            except FileNotFoundError:
                continue  # gone since
            except UnreadableError as error:
                found[name] = error
    return found


def links(folder: Directory, found: Listing) -> dict[str, str | None]:
    """Find the symbolic links in a listing, as `listing.Links` has them."""
    targets: dict[str, str | None] = {}
    for name in found:
        info = folder.stat(name)
        if info and stat.S_ISLNK(info.st_mode):
            with suppress(UnreadableError):
                path = folder.follow(name)
                targets[name] = path.name if path and len(path.parts) == 1 else None
    return targets


def carry_out(folder: Directory, steps: Sequence[Step], *, patient: bool = True) -> None:
    """Apply steps in order, each durable before the next.

    If `patient`, no file changes that another program has open for writing.

    Raises:
        BusyError: if another program has one open.
        OutdatedError: if a file has changed since the steps were planned.
        OSError: if a file could not be changed. The preceding steps are applied, and the directory parses.
    """
    for step in steps:
        if isinstance(step, Delete):
            exchange.delete(folder, step.name, step.expected, patient=patient)
        else:
            _write(folder, step, patient=patient)


def sweep(folder: Directory, *, patient: bool = True) -> list[str]:
    """Delete leftovers of killed agents, restore files that must not be deleted, and name what was deleted."""
    return [*exchange.settle(folder, patient=patient), *folder.sweep()]


def _write(folder: Directory, step: Write, *, patient: bool) -> None:
    with ExitStack() as opened:
        like = None
        if step.source and step.expected is None:
            with suppress(FileNotFoundError, UnreadableError):
                like = opened.enter_context(Inode(folder, step.source[0], follow=True))
        before = folder.stat(step.name)
        exchange.write(folder, step.name, step.content, step.expected, like, source=step.source, patient=patient)
    if before and before.st_nlink > 1:
        _log.warning(
            "the file had hard links, which keep its old content",
            extra={"file": str(folder.path / step.name), "names": before.st_nlink - 1},
        )
