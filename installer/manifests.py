"""Pods from a folder of manifests, for a node without a cluster: `--pods-from DIR`.

The folder is looked at whenever a pod is asked for, so that a pod may be started as soon as its manifest is written;
only files that have changed since are read again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from installer.files import LARGEST, explain
from plugin.pod import ManifestError, Pod, PodsUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUFFIXES = (".yaml", ".yml", ".json")
LOOK_EVERY = 5.0  # seconds, for readiness and the number of pods; an answer never depends on it

_log = logging.getLogger(__name__)


class _File(NamedTuple):
    """A file as it was read: what tells it from a later version, and its pods or why it has none."""

    version: tuple[int, int, int]
    pods: tuple[Pod, ...]
    error: str | None


class ManifestPods:
    """The pods of a folder, behind the same interface as those of a cluster (`plugin.pod.PodSource`)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[Path, _File] = {}
        self._reason = "not looked at yet"

    @property
    def known(self) -> bool:
        """Whether the folder could be read."""
        return not self._reason

    @property
    def reason(self) -> str:
        """Why it could not."""
        return self._reason

    @property
    def count(self) -> int:
        """The number of pods in the folder when it was last looked at."""
        return sum(len(file.pods) for file in self._files.values())

    async def run(self, stop: asyncio.Event) -> None:
        """Look at the folder every few seconds until told to stop."""
        while not stop.is_set():
            self._look()
            try:
                async with asyncio.timeout(LOOK_EVERY):
                    await stop.wait()
            except TimeoutError:
                continue

    async def find(self, namespace: str, name: str, uid: str | None) -> Pod | None:
        """Find a pod as its manifest is now; one without a uid stands for any pod of its name.

        Raises:
            PodsUnavailable: if the folder cannot be read, or a file in it cannot and the pod is in no other.
        """
        self._look()
        if self._reason:
            raise PodsUnavailable(self._reason)
        for file in self._files.values():
            for pod in file.pods:
                if (pod.namespace, pod.name) == (namespace, name) and (not pod.uid or pod.has_uid(uid)):
                    return pod
        if errors := [file.error for file in self._files.values() if file.error]:
            raise PodsUnavailable(f"it may be in a file that cannot be read: {errors[0]}")
        return None

    def _look(self) -> None:
        try:
            paths = sorted(path for path in self._folder.iterdir() if path.suffix in SUFFIXES)
            self._files = {path: self._read(path) for path in paths}
            self._reason = ""
        except OSError as error:
            self._reason = explain(error)

    def _read(self, path: Path) -> _File:
        seen = path.stat()
        version = (seen.st_ino, seen.st_size, seen.st_mtime_ns)
        known = self._files.get(path)
        if known and known.version == version:
            return known
        try:
            file = _File(version, tuple(_pods(path, seen.st_size)), None)
        except (OSError, ValueError, yaml.YAMLError) as error:
            file = _File(version, (), f"{path}: {error}")
            _log.warning("skipped: no manifests of pods", extra={"file": str(path), "reason": str(error)})
        return file


def _pods(path: Path, size: int) -> Iterator[Pod]:
    if size > LARGEST:
        raise ManifestError(f"saw {size} bytes, expected at most {LARGEST}")
    with path.open("rb") as text:
        for document in yaml.safe_load_all(text):
            if document is not None:
                yield Pod.from_manifest(_require_pod(document))


def _require_pod(document: object) -> dict[str, Any]:
    kind = document.get("kind") if isinstance(document, dict) else document
    if not isinstance(document, dict) or kind != "Pod":
        raise ManifestError(f"saw kind {kind!r:.60}, expected Pod")
    return document
