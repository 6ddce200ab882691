"""What processes use."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """Processor seconds until now, resident bytes now and at most until now."""

    cpu: float
    resident: int = 0
    peak: int = 0


def usage(pid: int) -> Usage:
    """Read what a process has used; one that has ended, and was not waited for yet, has no memory."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text()
    found = {
        name: int(kilobytes) * 1024 for name, kilobytes in re.findall(r"^(Vm\w+):\s+(\d+) kB$", status, re.MULTILINE)
    }
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS, found.get("VmRSS", 0), found.get("VmHWM", 0))


def all_cpu() -> float:
    """Read the processor seconds that everything on this machine has used."""
    first = Path("/proc/stat").read_text().splitlines()[0]
    user, nice, system, _, _, interrupts, soft_interrupts, *_ = map(int, first.split()[1:])
    return (user + nice + system + interrupts + soft_interrupts) / _TICKS
