"""Container images without a registry: docker archives of a few files, which `ctr images import` takes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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


@dataclass(frozen=True)
class Image:
    """One image of a single layer.

    Attributes:
        name: what the runtime calls it.
        files: what it holds: path in the image, and file here or content.
        entrypoint: what its containers run.
        user: as whom, numeric, as a kubelet that is told runAsNonRoot asks for.
        environment: variables, each `NAME=VALUE`.
        links: symbolic links: path in the image, and where each leads.
        arguments: of the entrypoint, unless a pod gives others.
    """

    name: str
    files: Mapping[str, Path | bytes]
    entrypoint: tuple[str, ...] = ()
    user: str = ""
    environment: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()


def archive(path: Path) -> Path:
    """Write the images of `IMAGES` into one docker archive."""
    own = [
        Image(name, {program: compiled(program) for program in programs}, (f"/{programs[0]}",))
        for name, programs in IMAGES.items()
    ]
    return write(path, own)


def write(path: Path, images: Sequence[Image]) -> Path:
    """Write images into one docker archive (image specification v1.2, `docker save`)."""
    with tarfile.open(path, "w") as tar:
        manifest = []
        for image in images:
            layer = path.with_suffix(".layer")
            digest = write_layer(layer, image.files, image.links)
            config = json.dumps(
                {
                    "architecture": _architecture(),
                    "os": "linux",
                    "config": {
                        "Entrypoint": [*image.entrypoint],
                        "Cmd": [*image.arguments],
                        "User": image.user,
                        "Env": [*image.environment],
                    },
                    "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
                }
            ).encode()
            names = f"{hashlib.sha256(config).hexdigest()}.json", f"{digest}/layer.tar"
            add(tar, names[0], config)
            tar.add(layer, names[1])
            layer.unlink()
            manifest.append({"Config": names[0], "RepoTags": [image.name], "Layers": [names[1]]})
        add(tar, "manifest.json", json.dumps(manifest).encode())
    return path


def libraries(program: Path) -> dict[str, Path]:
    """List the dynamic linker and what it loads for a program, by their paths in an image."""
    listed = subprocess.run(["/usr/bin/ldd", program], capture_output=True, text=True, check=True).stdout
    words = [word for line in listed.splitlines() for word in line.split() if word.startswith("/")]
    return {word.lstrip("/"): Path(word).resolve() for word in words}


def write_layer(path: Path, files: Mapping[str, Path | bytes], links: Mapping[str, str] | None = None) -> str:
    """Write a layer of an image's files and links, and return its digest."""
    with tarfile.open(path, "w") as tar:
        for name in _FOLDERS:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(folder)
        for inside, content in files.items():
            if isinstance(content, Path):
                tar.add(content.resolve(), inside)
            else:
                add(tar, inside, content)
        for inside, target in (links or {}).items():
            link = tarfile.TarInfo(inside)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
    with path.open("rb") as written:
        return hashlib.file_digest(written, "sha256").hexdigest()


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file of this content to an archive."""
    file = tarfile.TarInfo(name)
    file.size, file.mode = len(content), 0o644
    tar.addfile(file, io.BytesIO(content))


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
