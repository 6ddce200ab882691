"""What stdout can show."""

from __future__ import annotations

import os
import shutil
import sys

from installer.terminal.tables import Style


def is_drawable() -> bool:
    """Whether stdout is a terminal that can be told where to draw."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def style() -> Style:
    """Find out what stdout can show; NO_COLOR (no-color.org) is respected, and COLUMNS."""
    if not is_drawable():
        return Style()
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    colours = not os.environ.get("NO_COLOR")
    return Style(shutil.get_terminal_size().columns, colours=colours, bar="█░" if encoding == "utf8" else "#-")
