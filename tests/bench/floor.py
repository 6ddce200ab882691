"""The least that an ADD can cost: the same exchange by a static C client, and the kernel's part alone."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from plugin import netns
from plugin.redirect import Family, Redirect
from plugin.rules import ruleset
from plugin.session_nft import NftSession
from plugin.session_replay import ReplaySession
from plugin.template import compile_now

if TYPE_CHECKING:
    from collections.abc import Sequence


def compiled(folder: Path) -> Path:
    """Compile the C client."""
    program = folder / "floor"
    source = Path(__file__).with_name("floor.c")
    subprocess.run(["/usr/bin/gcc", "-O2", "-static", "-o", str(program), str(source)], check=True)
    return program


def apply_alone(pairs: Sequence[tuple[Path, Path]]) -> tuple[list[float], list[float]]:
    """Apply the default rules, v4 and v6, and read them back, in one warm thread; what is freed is not timed.

    Args:
        pairs: two netns for each round.

    Returns:
        Milliseconds by messages that were compiled before, and by libnftables.
    """
    rules = ruleset(Redirect(families=(Family.V4, Family.V6)))

    def measure(kind: type[ReplaySession | NftSession], path: Path) -> float:
        with path.open("rb") as file, netns.entered(netns.NetnsFd(file.fileno())):
            started = time.perf_counter()
            session = kind()
            session.replace(rules)
            if found := session.difference(rules):
                raise RuntimeError(found)
            taken = (time.perf_counter() - started) * 1000
            session.close()
        return taken

    with ThreadPoolExecutor(1) as worker:
        worker.submit(compile_now, rules).result()
        times = [
            (worker.submit(measure, ReplaySession, first).result(), worker.submit(measure, NftSession, second).result())
            for first, second in pairs
        ]
    return [replayed for replayed, _ in times], [compiled for _, compiled in times]
