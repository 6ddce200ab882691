"""The least that an ADD can cost: the same exchange by a static C client, and the kernel's part alone."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from plugin import netns, nft
from plugin.libnftables import Context
from plugin.redirect import Family, Redirect
from plugin.rules import ruleset

if TYPE_CHECKING:
    from collections.abc import Sequence


def compiled(folder: Path) -> Path:
    """Compile the C client."""
    program = folder / "floor"
    source = Path(__file__).with_name("floor.c")
    subprocess.run(["/usr/bin/gcc", "-O2", "-static", "-o", str(program), str(source)], check=True)
    return program


def apply_alone(paths: Sequence[Path]) -> list[float]:
    """Apply the default rules, v4 and v6, in each netns, in one warm thread: milliseconds, without freeing the context."""
    rules = nft.transaction(ruleset(Redirect(families=(Family.V4, Family.V6))))

    def measure() -> list[float]:
        times = []
        for path in paths:
            with path.open("rb") as file, netns.entered(netns.NetnsFd(file.fileno())):
                started = time.perf_counter()
                context = Context()
                context.run(rules)
                times.append((time.perf_counter() - started) * 1000)
                context.close()
        return times

    with ThreadPoolExecutor(1) as worker:
        return worker.submit(measure).result()
