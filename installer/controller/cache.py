"""What was last heard of each object of a kind. Pure.

kopf does not tell of objects that vanished while its watch was away; so all are listed now and then, and compared. Versions
of objects are compared as numbers, as the API's conventions allow, so that what is older never replaces what is newer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_T = TypeVar("_T")


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
        self.items: dict[str, _T] = {}

    def hear(self, manifest: Mapping[str, Any], *, gone: bool = False) -> bool:
        """Take note of an object; False if nothing of what is kept has changed."""
        metadata = manifest["metadata"]
        key, version = metadata[self._key], int(metadata.get("resourceVersion") or 0)
        if version < self._versions.get(key, 0):
            return False
        if gone:
            self._versions.pop(key, None)
            return self.items.pop(key, None) is not None
        self._versions[key] = version
        read = self._read(manifest)
        changed = key not in self.items or self.items[key] != read
        self.items[key] = read
        return changed

    def versions(self) -> dict[str, int]:
        """Return the version of each, to be given to `compare` after all have been listed."""
        return dict(self._versions)

    def compare(self, listed: Iterable[Mapping[str, Any]], before: Mapping[str, int]) -> bool:
        """Take note of a list of all; False if it was all known.

        Args:
            listed: the objects.
            before: what `versions` said before they were asked for: what has been heard of since stays.
        """
        changed, left = False, set(before)
        for manifest in listed:
            left.discard(manifest["metadata"][self._key])
            changed |= self.hear(manifest)
        for key in left:
            if self._versions.get(key) == before[key]:
                del self._versions[key], self.items[key]
                changed = True
        return changed
