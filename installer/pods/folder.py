"""Pods from a folder of manifests, for a node without a cluster: `--pods-from DIR`.

A Deployment, a Job or a list is accepted like a Pod: its template matches the pods whose names begin with its own.
The folder is watched, and also checked on each lookup, so that a pod may be started as soon as its
manifest is written; only changed files are read again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from installer.aio import either
from installer.documents.reader import read_file
from installer.host.files import LARGEST, explain
from installer.host.inotify import Watcher
from installer.pods.manifest import Found, read
from plugin.pod import ManifestError, PodsUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from plugin.pod import Pod

SUFFIXES = (".yaml", ".yml", ".json")
LOOK_EVERY = 5.0  # seconds: inotify misses what others write to a file system that they share, such as NFS

_log = logging.getLogger(__name__)


class _Known(NamedTuple):
    """A pod in a file, or the template of pods whose names begin with its name."""

    pod: Pod
    is_template: bool

    def fits(self, namespace: str, name: str, uid: str | None) -> bool:
        """Whether it is the requested pod. A manifest without a uid matches any pod of its name."""
        if self.pod.namespace != namespace:
            return False
        if self.is_template:
            return name.startswith(f"{self.pod.name}-")
        return self.pod.name == name and (not self.pod.uid or self.pod.has_uid(uid))


class _File(NamedTuple):
    """A file as last read: what distinguishes it from a later version, and its pods or why it has none."""

    version: tuple[int, ...]
    pods: tuple[_Known, ...]
    error: str | None


class ManifestPods:
    """The pods of a folder, behind the same interface as those of a cluster (`plugin.pod.PodSource`)."""

    def __init__(self, folder: Path, on_change: Callable[[], None] = lambda: None) -> None:
        """Prepare; `run` begins. `on_change` is called after each change of what the folder holds."""
        self._folder = folder
        self._on_change = on_change
        self._files: dict[str, _File] = {}  # by name
        self.reason = "not looked at yet"  # why the folder could not be read; empty if it could

    @property
    def known(self) -> bool:
        """Whether the folder could be read."""
        return not self.reason

    @property
    def count(self) -> int:
        """The number of pods in the folder at the last check."""
        return sum(len(file.pods) for file in self._files.values())

    def __iter__(self) -> Iterator[Pod]:
        """Iterate over the pods; a template counts as one."""
        return (known.pod for file in self._files.values() for known in file.pods)

    async def run(self, stop: asyncio.Event) -> None:
        """Check the folder when something in it changes, until `stop` is set."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def wake(_: str) -> None:
            loop.call_soon_threadsafe(changed.set)

        watcher = Watcher({self._folder: lambda name: name.endswith(SUFFIXES)}, wake)
        try:
            while not stop.is_set():
                changed.clear()
                watcher.refresh()
                self._refresh()
                await either(stop, changed, LOOK_EVERY)
        finally:
            watcher.close()

    async def find(self, namespace: str, name: str, uid: str | None, *, fresh: bool = False) -> Pod | None:  # noqa: ARG002 - it is always
        """Find a pod in the current manifests; one without a uid matches any pod of its name.

        Raises:
            PodsUnavailable: if the folder cannot be read, or a file in it cannot and the pod is in no other.
        """
        if pod := self._unchanged(namespace, name, uid):
            return pod
        self._refresh()
        if self.reason:
            raise PodsUnavailable(self.reason)
        matching = [known for file in self._files.values() for known in file.pods if known.fits(namespace, name, uid)]
        if matching:  # a pod precedes a template, and web-api's template precedes web's
            return max(matching, key=lambda known: (not known.is_template, len(known.pod.name))).pod
        if errors := [file.error for file in self._files.values() if file.error]:
            raise PodsUnavailable(f"it may be in a file that cannot be read: {errors[0]}")
        return None

    def _unchanged(self, namespace: str, name: str, uid: str | None) -> Pod | None:
        """Find a pod whose file is as it was at the last check: to check all files takes longer than the rest of an ADD."""
        for file_name, file in self._files.items():
            for known in file.pods:
                if not known.is_template and known.fits(namespace, name, uid):
                    try:
                        return known.pod if _version((self._folder / file_name).stat()) == file.version else None
                    except OSError:
                        return None
        return None

    def cached(self, namespace: str, name: str, uid: str | None) -> Pod | None:
        """Return a pod whose manifest has this uid: one without a uid matches any pod of its name, which proves nothing."""
        matching = (
            known.pod for file in self._files.values() for known in file.pods if known.fits(namespace, name, uid)
        )
        return next((pod for pod in matching if uid and pod.uid), None)

    def _refresh(self) -> None:
        """Check the folder."""
        before = self.reason, self._files
        try:
            self.reason, self._files = "", self._read_all()
        except OSError as error:
            self.reason, self._files = explain(error), {}
        if (self.reason, self._files) != before:
            self._on_change()

    def _read_all(self) -> dict[str, _File]:
        """Read all files that have changed; names stay text, as this runs for each pod."""
        with os.scandir(self._folder) as entries:
            found = sorted((each for each in entries if each.name.endswith(SUFFIXES)), key=lambda each: each.name)
        return {each.name: file for each in found if (file := self._read(each))}

    def _read(self, entry: os.DirEntry[str]) -> _File | None:
        """Read a file, if it has changed; None if it is gone, or is not a file."""
        try:
            info = entry.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            return self._skip(entry.name, (), explain(error))
        if not stat.S_ISREG(info.st_mode):
            return None
        version = _version(info)
        known = self._files.get(entry.name)
        if known and known.version == version:
            return known
        try:
            return _File(version, tuple(_known(self._folder / entry.name, info.st_size)), None)
        except OSError as error:
            return self._skip(entry.name, version, explain(error))
        except ManifestError as error:
            return self._skip(entry.name, version, str(error))

    def _skip(self, name: str, version: tuple[int, ...], reason: str) -> _File:
        path = self._folder / name
        file = _File(version, (), f"{path}: {reason}")
        known = self._files.get(name)
        if not known or known.error != file.error:
            _log.warning("skipped: no manifests of pods", extra={"file": str(path), "reason": reason})
        return file


def _version(info: os.stat_result) -> tuple[int, ...]:
    return info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def _known(path: Path, size: int) -> Iterator[_Known]:
    if size > LARGEST:
        raise ManifestError(f"saw {size} bytes, expected at most {LARGEST}")
    for each in read(read_file(str(path), LARGEST), is_json=path.suffix == ".json"):
        if isinstance(each, Found):
            yield _Known(each.pod, is_template=each.written.is_template)
