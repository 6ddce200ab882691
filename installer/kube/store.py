"""What was last heard of each object of a kind. Pure.

kopf does not tell of objects that vanished while its watch was away; so all are listed now and then, and compared. Versions
of objects are compared as numbers, as the API's conventions allow, so that what is older never replaces what is newer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_T = TypeVar("_T")


class Entry(NamedTuple, Generic[_T]):
    """What is kept of an object: what it is known by, its version, and what was read of it."""

    key: str
    version: int
    read: _T


class Cache(Generic[_T]):
    """Objects of one kind, by name, or by uid."""

    def __init__(self, read: Callable[[Mapping[str, Any]], _T], key: str = "name") -> None:
        """Prepare.

        Args:
            read: makes what is kept of an object.
            key: the field of its metadata that it is known by.
        """
        self._read = read
        self._key = key
        self._versions: dict[str, int] = {}
        self._gone: dict[str, int] = {}  # the versions of what went since the last comparison: a list may still have it
        self.items: dict[str, _T] = {}

    def hear(self, manifest: Mapping[str, Any], *, gone: bool = False) -> bool:
        """Take note of an object; False if nothing of what is kept has changed."""
        entry = self.entry(manifest)
        if not gone:
            return self._keep(entry)
        if entry.version < self._versions.get(entry.key, 0):
            return False
        self._versions.pop(entry.key, None)
        self._gone[entry.key] = entry.version
        return self.items.pop(entry.key, None) is not None

    def entry(self, manifest: Mapping[str, Any]) -> Entry[_T]:
        """Read an object, without taking note of it."""
        metadata = manifest["metadata"]
        return Entry(metadata[self._key], int(metadata.get("resourceVersion") or 0), self._read(manifest))

    def versions(self) -> dict[str, int]:
        """Return the version of each, to be given to `compare` after all have been listed."""
        return dict(self._versions)

    def compare(self, listed: Iterable[Entry[_T]], before: Mapping[str, int]) -> bool:
        """Take note of a list of all; False if it was all known.

        Args:
            listed: the objects.
            before: what `versions` said before they were asked for: what has been heard of since stays.
        """
        changed, left = False, set(before)
        for entry in listed:
            left.discard(entry.key)
            changed |= self._keep(entry)
        for key in left:
            if self._versions.get(key) == before[key]:
                del self._versions[key], self.items[key]
                changed = True
        self._gone = {}
        return changed

    def _keep(self, entry: Entry[_T]) -> bool:
        key, version, read = entry
        if version < self._versions.get(key, 0) or version <= self._gone.get(key, -1):
            return False
        self._versions[key] = version
        changed = key not in self.items or self.items[key] != read
        self.items[key] = read
        return changed
