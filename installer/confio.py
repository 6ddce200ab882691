"""The edge of `confdir`: reads cniConfDir for it, and carries its steps out."""

from collections.abc import Sequence

from installer.confdir import LIST, Delete, Step
from installer.files import PRIVATE, Access, Directory, UnreadableError, is_temporary
from installer.settings import CONF_SUFFIXES


class OutdatedError(Exception):
    """Somebody has changed a file since the steps were planned: they must be planned anew."""


def of_interest(name: str) -> bool:
    """Tell whether a change of a file in cniConfDir is a reason to look again."""
    return name.endswith(CONF_SUFFIXES) and not is_temporary(name)


def listing(folder: Directory) -> dict[str, bytes | OSError]:
    """Read what libcni would read: by name, the content, or why there is none."""
    found: dict[str, bytes | OSError] = {}
    for name in folder.names():
        if of_interest(name) and not folder.is_directory(name):
            try:
                found[name] = folder.read(name)
            except FileNotFoundError:
                continue  # gone since
            except UnreadableError as error:
                found[name] = error
    return found


def carry_out(folder: Directory, steps: Sequence[Step]) -> None:
    """Carry out steps in their order, each durable before the next.

    Raises:
        OutdatedError: if a file is no longer what it was when they were planned.
        OSError: if a file could not be changed. The steps before it are done, and the directory parses.
    """
    for step in steps:
        if _held(folder, step.name) != step.seen:
            raise OutdatedError(f"{folder.path / step.name}: changed by another program at this moment")
        if isinstance(step, Delete):
            folder.delete(step.name)
        else:
            folder.write(step.name, (step.content,), _access(folder, step.name))


def _held(folder: Directory, name: str) -> bytes | None:
    try:
        return folder.read(name)
    except (FileNotFoundError, UnreadableError):
        return None


def _access(folder: Directory, name: str) -> Access:
    """Give a file the mode and owner of the one that it replaces, or is made from: `x.conf`, `x.conf.conflist`."""
    for like in (name, name.removesuffix(LIST), name + LIST):
        if access := folder.access(like):
            return access
    return PRIVATE
