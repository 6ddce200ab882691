"""Builds the image into `build/image.tar`: `make image`, or `python -m tests.image.build`.

It is an OCI archive, for `ctr images import`, `podman load` or `skopeo copy`, of the unchanged Dockerfile. A stamp beside it,
written last, says what it was built from; while it agrees with the files here there is nothing to do.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tarfile
import tempfile
import time
from functools import cache
from pathlib import Path

from installer.version import RELEASE
from tests.image import builder
from tests.image.base import base
from tests.image.contents import layers

HERE = Path(__file__).parents[2]
ARCHIVE = HERE / "build" / "image.tar"
HUB = "localhost/istio"  # what the chart calls cni.hub
NAME = f"{HUB}/install-cni:{RELEASE}"

_STAMP = ARCHIVE.with_suffix(".built-from")
_INPUTS = (
    "Dockerfile",
    ".dockerignore",
    "Makefile",
    "tests/setup-packages",
    "plugin",
    "installer",
)  # all that it reads


def is_built() -> bool:
    """Whether the archive is there, and of the files that are here."""
    return ARCHIVE.is_file() and _STAMP.is_file() and _STAMP.read_text() == inputs()


@cache
def archive() -> Path:
    """Return the archive; whether it is of the files that are here is looked at once.

    Raises:
        AssertionError: if it is not of the files that are here.
    """
    assert is_built(), f"{ARCHIVE} is not there, or of other files than those here; `make image` builds it"
    return ARCHIVE


def inputs() -> str:
    """Make a digest of what the image is built from."""
    digest = hashlib.sha256(NAME.encode())
    for name in _INPUTS:
        below = sorted(path for path in (HERE / name).rglob("*") if path.is_file() and path.suffix != ".pyc")
        for path in below or [HERE / name]:
            digest.update(f"{path.relative_to(HERE)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def build() -> None:
    """Build it if it is not built, and say how large it is.

    Raises:
        SystemExit: with what is missing or what failed.
    """
    if not is_built():
        _build()
    with tarfile.open(ARCHIVE) as tar:
        uncompressed = sum(member.size for layer in layers(tar) for member in layer)
    compressed = ARCHIVE.stat().st_size
    print(f"image: {NAME} is in {ARCHIVE}: {_mb(compressed)} compressed, {_mb(uncompressed)} uncompressed")


def _build() -> None:
    started, source, used = time.monotonic(), inputs(), builder.found()
    reference = _reference()
    print(f"image: building {NAME} with {used.name}", flush=True)
    ARCHIVE.parent.mkdir(exist_ok=True)
    _STAMP.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="istio-cni-image-") as folder:
        used.build(NAME, HERE, {"BASE": base(used, reference, Path(folder))})
    unnamed = ARCHIVE.with_suffix(".new")
    used.save(NAME, unnamed)
    unnamed.rename(ARCHIVE)
    _STAMP.write_text(source)
    print(f"image: built in {time.monotonic() - started:.0f} s")


def _reference() -> str:
    found = re.search(r"^ARG BASE=(\S+)$", (HERE / "Dockerfile").read_text(), re.MULTILINE)
    if not found:
        raise SystemExit("image: the Dockerfile has no line ARG BASE=…, expected one")
    return found[1]


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


if __name__ == "__main__":
    try:
        build()
    except KeyboardInterrupt:
        sys.exit("image: stopped; what the builder has kept makes the next time shorter")
