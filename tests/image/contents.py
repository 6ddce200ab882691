"""What an OCI archive of one image holds."""

from __future__ import annotations

import json
import tarfile
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def config(archive: tarfile.TarFile) -> dict[str, Any]:
    """Read the image's configuration (image-spec, config.md)."""
    found: dict[str, Any] = json.load(_blob(archive, _manifest(archive)["config"]))
    return found


def names(archive: tarfile.TarFile) -> list[str]:
    """List the names that the archive gives its image."""
    listed = [each["annotations"] for each in json.load(_file(archive, "index.json"))["manifests"]]
    return [each.get("io.containerd.image.name") or each["org.opencontainers.image.ref.name"] for each in listed]


def layers(archive: tarfile.TarFile) -> Iterator[tarfile.TarFile]:
    """Open each layer, the lowest first."""
    for layer in _manifest(archive)["layers"]:
        with tarfile.open(fileobj=_blob(archive, layer)) as opened:
            yield opened


def blobs(archive: tarfile.TarFile) -> Iterator[bytes]:
    """Read each layer as it is in the archive, compressed, the lowest first."""
    for layer in _manifest(archive)["layers"]:
        yield _blob(archive, layer).read()


def unpack(archive: Path, root: Path) -> None:
    """Lay out the image's files below a folder, as root, owners and permissions with them."""
    with tarfile.open(archive) as opened:
        for layer in layers(opened):
            layer.extractall(root, numeric_owner=True)  # noqa: S202 - we have made it


def _manifest(archive: tarfile.TarFile) -> dict[str, Any]:
    (only,) = json.load(_file(archive, "index.json"))["manifests"]
    found: dict[str, Any] = json.load(_blob(archive, only))
    return found


def _blob(archive: tarfile.TarFile, descriptor: dict[str, Any]) -> IO[bytes]:
    algorithm, digest = descriptor["digest"].split(":")
    return _file(archive, f"blobs/{algorithm}/{digest}")


def _file(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    opened = archive.extractfile(name)
    assert opened, f"{name} is no file"
    return opened
