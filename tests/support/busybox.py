"""Images with a shell and Debian's busybox, under whatever name a test suite asks for: nothing is fetched from a registry."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.images import Image

if TYPE_CHECKING:
    from collections.abc import Mapping

BUSYBOX = Path("/bin/busybox")  # of Debian's busybox-static

_USERS = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n"
_GROUPS = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n"


def image(name: str, *entrypoint: str, files: Mapping[str, Path | bytes] | None = None) -> Image:
    """Make an image with all of busybox's programs in /bin, and further files."""
    held = {
        "bin/busybox": BUSYBOX,
        "etc/passwd": _USERS.encode(),
        "etc/group": _GROUPS.encode(),
        **(files or {}),
    }
    listed = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    links = {f"bin/{each}": "busybox" for each in listed if f"bin/{each}" not in held}
    return Image(name, held, entrypoint, links=links)
