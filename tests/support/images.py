"""Container images without a registry: static C programs in docker archives, which `ctr images import` takes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

PAUSE = "tests.local/pause:1"
APP = "tests.local/app:1"  # /web and /get
IMAGES = {PAUSE: ("pause",), APP: ("web", "get")}

_PROGRAMS = Path(__file__).with_name("programs")
_BUILT = Path(__file__).parents[2] / "build" / "programs"
_FOLDERS = ("etc", "tmp", "proc", "sys", "dev")


def compiled(name: str) -> Path:
    """Compile one of `programs/` into a static file, unless that was done since it was last edited."""
    source, program = _PROGRAMS / f"{name}.c", _BUILT / name
    if program.exists() and program.stat().st_mtime >= source.stat().st_mtime:
        return program
    _BUILT.mkdir(parents=True, exist_ok=True)
    beside = program.with_name(f"{name}.{os.getpid()}")
    subprocess.run(["/usr/bin/gcc", "-static", "-Os", "-s", "-Wall", "-Werror", "-o", beside, source], check=True)
    beside.replace(program)
    return program


def archive(path: Path) -> Path:
    """Write all images into one docker archive (image specification v1.2, `docker save`)."""
    with tarfile.open(path, "w") as tar:
        manifest = []
        for reference, names in IMAGES.items():
            layer = _layer(names)
            digest = hashlib.sha256(layer).hexdigest()
            config = json.dumps(
                {
                    "architecture": _architecture(),
                    "os": "linux",
                    "config": {"Cmd": [f"/{names[0]}"]},
                    "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
                }
            ).encode()
            files = {f"{hashlib.sha256(config).hexdigest()}.json": config, f"{digest}/layer.tar": layer}
            for name, content in files.items():
                _add(tar, name, content, 0o644)
            config_name, layer_name = files
            manifest.append({"Config": config_name, "RepoTags": [reference], "Layers": [layer_name]})
        _add(tar, "manifest.json", json.dumps(manifest).encode(), 0o644)
    return path


def _layer(names: tuple[str, ...]) -> bytes:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in _FOLDERS:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(folder)
        for name in names:
            _add(tar, name, compiled(name).read_bytes(), 0o755)
    return layer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    file = tarfile.TarInfo(name)
    file.size, file.mode = len(content), mode
    tar.addfile(file, io.BytesIO(content))


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
