"""The last observed state of each object of a kind. Pure.

Lists are compared with what a watch has reported, because a watch does not report objects deleted during a gap. Versions of
objects are compared as numbers, as the API's conventions allow, so that an older state never replaces a newer one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

_T = TypeVar("_T")


class Entry(NamedTuple, Generic[_T]):
    """The kept part of an object: its key, its version, and what was read from it."""

    key: str
    version: int
    read: _T


class Store(Generic[_T]):
    """Objects of one kind, by name or by uid."""

    def __init__(self, read: Callable[[Mapping[str, Any]], _T], key: str = "name") -> None:
        """Prepare; `read` extracts what is kept of an object, `key` is the field of its metadata that identifies it."""
        self._read = read
        self._key = key
        self._versions: dict[str, int] = {}
        # Versions of objects deleted since the last list: the next list may still have them.
        self._deleted: dict[str, int] = {}
        self.items: dict[str, _T] = {}

    def entry(self, manifest: Mapping[str, Any]) -> Entry[_T]:
        """Read an object without keeping it."""
        metadata = manifest["metadata"]
        return Entry(metadata[self._key], int(metadata.get("resourceVersion") or 0), self._read(manifest))

    def observe(self, manifest: Mapping[str, Any], *, deleted: bool = False) -> bool:
        """Keep an object, or remove it; False if nothing that is kept has changed."""
        entry = self.entry(manifest)
        return self.remove(entry) if deleted else self.keep(entry)

    def keep(self, entry: Entry[_T], *, force: bool = False) -> bool:
        """Keep an object, unless a newer state of it was observed; False if nothing has changed.

        With `force` it is known to be newer, regardless of its version: etcd may have been restored from a backup.
        """
        key, version, read = entry
        is_older = version < self._versions.get(key, 0) or version <= self._deleted.get(key, -1)
        if is_older and not force:
            return False
        self._versions[key] = version
        changed = key not in self.items or self.items[key] != read
        self.items[key] = read
        return changed

    def remove(self, entry: Entry[_T]) -> bool:
        """Remove a deleted object, unless a newer one of its key was observed; False if nothing has changed."""
        if entry.version < self._versions.get(entry.key, 0):
            return False
        self._versions.pop(entry.key, None)
        self._deleted[entry.key] = entry.version
        return self.items.pop(entry.key, None) is not None

    def versions(self) -> dict[str, int]:
        """Return the version of each object, for `replace` and `retain` once all have been listed."""
        return dict(self._versions)

    def replace(self, listed: Iterable[Entry[_T]], before: Mapping[str, int]) -> bool:
        """Keep what a list has, and remove the rest; False if nothing has changed.

        `before` is what `versions` returned before the request: objects observed since then stay.
        """
        changed, keys = False, set()
        for entry in listed:
            keys.add(entry.key)
            changed |= self.keep(
                entry, force=entry.key in before and self._versions.get(entry.key) == before[entry.key]
            )
        return self.retain(keys, before) or changed

    def retain(self, keys: Collection[str], before: Mapping[str, int]) -> bool:
        """Remove what a list lacks; False if nothing has changed.

        `keys` are those of all objects; `before` is as for `replace`.
        """
        deleted = [key for key in before if key not in keys and self._versions.get(key) == before[key]]
        for key in deleted:
            del self._versions[key], self.items[key]
        self._deleted = {}
        return bool(deleted)
