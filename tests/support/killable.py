"""Installs or uninstalls in a child process that kills itself at a chosen system call, again and again.

`python -m tests.support.killable` reads lines `ACTION WHEN NUMBER ROOT` and answers each with `killed` or `done`.
ACTION is `install`, `uninstall`, or one of these with `+` and a number: as many times, right before two names change places,
the primary CNI renames a new content over its file, and notes that in ROOT/written.
WHEN is `before` or `after`: the NUMBER-th call that touches the disk is the last thing that does not, or does, happen.
The interpreter with all modules is forked, so that hundreds of kills take seconds.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from installer.host import exchange
from installer.host.uninstall import uninstall
from tests.support.ondisk import PRIMARY, NodeOnDisk
from tests.support.primary import content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CALLS = ("open", "write", "fchown", "fchmod", "fsync", "close", "replace", "rename", "link", "unlink", "rmdir")
REPLACE = os.replace  # the primary is not killed


@contextmanager
def each_call(wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Wrap each of the calls for the duration of a block."""
    functions = [(os, name) for name in CALLS] + [(exchange, "renameat2")]
    before = [getattr(module, name) for module, name in functions]
    for (module, name), call in zip(functions, before, strict=True):
        setattr(module, name, wrap(call))
    try:
        yield
    finally:
        for (module, name), call in zip(functions, before, strict=True):
            setattr(module, name, call)


def killed(when: str, number: int) -> AbstractContextManager[None]:
    """Have the process killed with the `number`-th of the calls."""
    made = 0

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal made
            made += 1
            if made == number and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            mine = made
            try:
                return call(*args, **kwargs)
            finally:  # also after a call that fails
                if mine == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        return wrapped

    return each_call(deadly)


def race(node: NodeOnDisk, times: int) -> None:
    """Have the primary CNI write in the worst of moments."""
    path, swap, written = node.conf / "10-primary.conflist", exchange.renameat2, 0

    def raced(*args: Any) -> None:
        nonlocal written
        if written < times:
            written += 1
            beside = path.with_name(".primary")
            beside.write_bytes(content(written, "raced"))
            REPLACE(beside, path)
            (node.root / "written").write_text(str(written))
        swap(*args)

    vars(exchange)["renameat2"] = raced


def act(action: str, root: Path) -> None:
    """Do the whole of it, if one lives so long."""
    node = NodeOnDisk.open(root)
    action, _, times = action.partition("+")
    if times:
        race(node, int(times))
    if action == "install":
        for _ in range(10):
            try:
                node.install()
                break
            except exchange.OutdatedError:
                continue
    else:
        failed = [done.text for done in uninstall(node.settings) if done.failed]
        assert not failed, failed


def main() -> None:
    """Serve one line after the other."""
    with tempfile.TemporaryDirectory() as folder:  # once unharmed, so that no child imports anything
        node = NodeOnDisk.make(Path(folder))
        (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
        act("install", node.root)
        act("uninstall", node.root)
    for line in sys.stdin:
        action, when, number, root = line.rstrip("\n").split(" ", 3)
        child = os.fork()
        if child == 0:
            try:
                with killed(when, int(number)):
                    act(action, Path(root))
            except BaseException:  # noqa: BLE001 - the child must never go on as its parent
                sys.excepthook(*sys.exc_info())
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        by_itself = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print("killed" if by_itself else "done" if status == 0 else "failed", flush=True)


if __name__ == "__main__":
    main()
