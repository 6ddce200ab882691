"""What processes use."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """Processor seconds until now, and resident bytes now."""

    cpu: float
    resident: int


def usage(pid: int) -> Usage:
    """Read what a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    assert found, f"no VmRSS of {pid}"
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS, int(found[1]) * 1024)
