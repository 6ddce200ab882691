"""The edge of `confdir`: reads cniConfDir for it, and carries its steps out."""

import logging
import stat
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from installer.cniconfig.plan import AWAY, LIST, Delete, Listing, Step, Write
from installer.config.value_types import CONF_SUFFIXES
from installer.host import exchange
from installer.host.files import Directory, UnreadableError
from installer.host.inode import Inode

_log = logging.getLogger(__name__)


def of_interest(name: str) -> bool:
    """Tell whether a change of a file in cniConfDir is a reason to look again."""
    return name.endswith(CONF_SUFFIXES) or exchange.is_aside(name)


def listing(folder: Directory) -> dict[str, bytes | OSError]:
    """Read what libcni would read, and what was renamed: by name, the content, or why there is none."""
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
    """Find the symbolic links in a listing, as `confdir.Links` has them."""
    meant: dict[str, str | None] = {}
    for name in found:
        seen = folder.stat(name)
        if seen and stat.S_ISLNK(seen.st_mode):
            with suppress(UnreadableError):
                path = folder.follow(name)
                meant[name] = path.name if path and len(path.parts) == 1 else None
    return meant


def carry_out(folder: Directory, steps: Sequence[Step], *, patient: bool = True) -> None:
    """Carry out steps in their order, each durable before the next.

    Args:
        folder: cniConfDir.
        steps: what is to be done.
        patient: change no file that another program has open for writing.

    Raises:
        BusyError: if one has.
        OutdatedError: if a file is no longer what it was when they were planned.
        OSError: if a file could not be changed. The steps before it are done, and the directory parses.
    """
    for step in steps:
        if isinstance(step, Delete):
            exchange.delete(folder, step.name, step.seen, patient=patient)
        else:
            _write(folder, step, patient=patient)


def sweep(folder: Directory, *, patient: bool = True) -> list[str]:
    """Take away what killed agents left, and put back what is not theirs to take.

    Returns:
        The names of what was taken away.
    """
    return [*exchange.settle(folder, patient=patient), *folder.sweep()]


def _write(folder: Directory, step: Write, *, patient: bool) -> None:
    with ExitStack() as opened:
        like = None
        if step.source and step.seen is None:
            with suppress(FileNotFoundError, UnreadableError):
                like = opened.enter_context(Inode(folder, step.source[0], follow=True))
        before = folder.stat(step.name)
        exchange.write(folder, step.name, step.content, step.seen, like, source=step.source, patient=patient)
    if before and before.st_nlink > 1:
        _log.warning(
            "the file had other names (hard links), which keep what it held",
            extra={"file": str(folder.path / step.name), "names": before.st_nlink - 1},
        )
