"""Directories whose file system does not answer, as one over the network or of FUSE whose server is away (F48).

A call there may never return, and nothing but the end of the file system ends it. Whoever works in a directory of the node
notes it here meanwhile, in a thread of its own: the event loop makes no such call while it runs, so that pods go on. What
takes too long makes the node not ready, and is logged by another thread, as at the agent's start the loop may wait, too.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NewType

from installer.kube.times import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 15.0  # seconds: more than a trial of the plugin file takes, or a slow disk
CHECK_EVERY = 2.0  # seconds

Work = NewType("Work", object)

_begun = threading.Event()  # work was noted
_works: dict[Work, tuple[Path, float, float]] = {}  # the directory of each, and when it began, by both clocks

_log = logging.getLogger(__name__)


def begin(directory: Path) -> Work:
    """Note the begin of work in a directory, by its path on the node; `end` notes its end."""
    work = Work(object())
    _works[work] = directory, time.monotonic(), time.time()
    _begun.set()
    return work


def end(work: Work) -> None:
    """Note the end of work; idempotent."""
    _works.pop(work, None)


@contextmanager
def waiting_for(directory: Path) -> Iterator[None]:
    """Note a block that works in a directory, by its path on the node."""
    work = begin(directory)
    try:
        yield
    finally:
        end(work)


def unanswered() -> str:
    """Describe the directories in which work takes too long, with the remedy; empty: there are none."""
    overdue = time.monotonic() - PATIENCE
    since: dict[Path, float] = {}
    for directory, begun, at in [*_works.values()]:  # oldest first
        if begun <= overdue:
            since.setdefault(directory, at)
    return "; ".join(_describe(*each) for each in sorted(since.items()))


def _describe(directory: Path, since: float) -> str:
    return (
        f"{directory}: its file system has not answered since {rfc3339(datetime.fromtimestamp(since, UTC))}: see "
        f"`findmnt -T {directory}` and `dmesg` on the node; bring back the server or program behind it, or unmount it "
        "(`umount -f`, `umount -l`)"
    )


@contextmanager
def logged() -> Iterator[None]:
    """Log the directories that do not answer, once each time, while a block runs."""
    stopped = threading.Event()
    threading.Thread(target=_keep_logging, args=(stopped,), name="unanswered", daemon=True).start()
    try:
        yield
    finally:
        stopped.set()
        _begun.set()


def _keep_logging(stopped: threading.Event) -> None:
    before = ""
    while not stopped.wait(CHECK_EVERY):
        _begun.clear()
        if not _works and not before:
            _begun.wait()
        now = unanswered()
        if now and not before:
            _log.error("a file system of the node does not answer", extra={"reason": now})
        elif before and not now:
            _log.warning("the file systems of the node answer again")
        before = now
