"""Another program that keeps undoing the installation (F9)."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextmanager
def undone(path: Path, write: Callable[[], object]) -> Iterator[None]:
    """Rewrite a conflist as soon as it has the plugin's entry, for the duration of a block.

    Args:
        path: the conflist.
        write: writes what it is to hold instead.
    """
    over = threading.Event()

    def conflict() -> None:
        while not over.wait(0.001):
            if "istio-cni" in path.read_text():
                write()

    thread = threading.Thread(target=conflict)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
