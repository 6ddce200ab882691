"""A directory of network configurations as the container runtime reads it: the files, their order, what each holds."""

from __future__ import annotations

import errno
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from installer.cniconfig import conflist
from installer.cniconfig.netconf import InvalidConfigError, NetworkConf
from plugin.jsontext import JsonError

if TYPE_CHECKING:
    from collections.abc import Mapping

LIST = ".conflist"
SINGLE = (".conf", ".json")
AWAY = ".cilium_bak"  # appended by Cilium to the names of foreign files: no runtime reads them under such a name
OUT_OF_SIGHT = errno.EXDEV  # the error of a file that the agent cannot read but the runtime may

Listing: TypeAlias = "Mapping[str, bytes | OSError]"
"""The regular files of a directory by name: each one's content, or why it cannot be read."""

Links: TypeAlias = "Mapping[str, str | None]"
"""The symbolic links among them: the target in the same directory; None: a target elsewhere."""

NO_LINKS: Links = MappingProxyType({})


def configurations(listing: Listing) -> list[str]:
    """Return the names that a runtime reads, in its order."""
    return sorted((name for name in listing if name.endswith((LIST, *SINGLE))), key=order)


def valid_lists(listing: Listing) -> list[str]:
    """Return the names of the valid conflists, in the runtime's order."""
    return [name for name in configurations(listing) if name.endswith(LIST) and is_valid(listing, name)]


def hidden_files(listing: Listing) -> list[str]:
    """Find the files that the runtime may be able to read, but not the agent."""
    found = ((name, listing[name]) for name in configurations(listing))
    return [name for name, content in found if isinstance(content, OSError) and content.errno == OUT_OF_SIGHT]


def content_of(listing: Listing, name: str) -> bytes:
    """Return the content of a file that a runtime accepts.

    Raises:
        InvalidConfigError: if it is unreadable or invalid.
    """
    content = listing[name]
    if isinstance(content, OSError):
        raise InvalidConfigError(f"saw an unreadable file ({content.strerror or content}), expected a configuration")
    try:
        if name.endswith((LIST, LIST + AWAY)):
            conflist.read_list(content)
        elif name.endswith(SINGLE):
            NetworkConf.parse(content)
        else:
            raise InvalidConfigError("saw a file that no runtime reads")
    except JsonError as error:  # it parsed, but is nested too deep for a second look from a deeper stack
        raise InvalidConfigError(str(error)) from error
    return content


def is_valid(listing: Listing, name: str) -> bool:
    """Return whether a file exists and a runtime accepts it."""
    try:
        content_of(listing, name)
    except (InvalidConfigError, KeyError):
        return False
    return True


def is_broken(listing: Listing, name: str) -> bool:
    """Return whether a file is readable, but no valid configuration."""
    return isinstance(listing[name], bytes) and not is_valid(listing, name)


def order(name: str) -> bytes:
    """Return the key by which a runtime sorts names: Go sorts by bytes."""
    return name.encode("utf-8", "surrogateescape")
