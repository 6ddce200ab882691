"""The edge of `confdir`: reads cniConfDir for it, and carries its steps out."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from installer import exchange
from installer.confdir import LIST, Delete, Step, Write
from installer.files import Directory, UnreadableError
from installer.inode import Inode
from installer.settings import CONF_SUFFIXES

_log = logging.getLogger(__name__)


def of_interest(name: str) -> bool:
    """Tell whether a change of a file in cniConfDir is a reason to look again."""
    return name.endswith(CONF_SUFFIXES) or exchange.is_aside(name)


def listing(folder: Directory) -> dict[str, bytes | OSError]:
    """Read what libcni would read: by name, the content, or why there is none."""
    found: dict[str, bytes | OSError] = {}
    for name in folder.names():
        if name.endswith(CONF_SUFFIXES) and not folder.is_directory(name):
            try:
                found[name] = folder.read(name)
            except FileNotFoundError:
                continue  # gone since
            except UnreadableError as error:
                found[name] = error
    return found


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
        like = _model(folder, step.name) if step.seen is None else None
        if like:
            opened.enter_context(like)
        before = folder.stat(step.name)
        exchange.write(folder, step.name, step.content, step.seen, like, patient=patient)
    if before and before.st_nlink > 1:
        _log.warning(
            "the file had other names (hard links), which keep what it held",
            extra={"file": str(folder.path / step.name), "names": before.st_nlink - 1},
        )


def _model(folder: Directory, name: str) -> Inode | None:
    """Open the file from which a new one is made, for its owner, permissions and attributes: `x.conf`, `x.conf.conflist`."""
    for like in (name.removesuffix(LIST), name + LIST):
        if like != name:
            with suppress(FileNotFoundError, UnreadableError):
                return Inode(folder, like)
    return None
