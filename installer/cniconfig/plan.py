"""The steps that add our entry to a directory of network configurations, and remove it.

Pure: a listing in, steps out. After each step the same network's configuration is first in the directory's order of
names, and a restart from there reaches the same end (F8).

A foreign list gets our entry (`conflist.splice`) and loses it again; lists of our own (`placement`) come and go. Our entry is
removed from all other files, so that no stale entry waits for a later switch, and a plugin that delegates to them does
not run ours twice. But if no configuration is usable, foreign lists stay unchanged: the one that is missing may return at
any moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from installer.cniconfig import conflist
from installer.cniconfig.listing import (
    AWAY,
    LIST,
    NO_LINKS,
    SINGLE,
    Links,
    Listing,
    configurations,
    content_of,
    hidden_files,
    is_valid,
    valid_lists,
)
from installer.cniconfig.meshes import ISTIOS, has_istios_entry
from installer.cniconfig.placement import NameInTheWayError, choose, edited_file, own_lists, place

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from installer.cniconfig.placement import Place


@dataclass(frozen=True)
class Write:
    """Replace the file `name` with `content` atomically, by rename.

    `expected` is the file's content at planning time, None if it was missing or unreadable: if the content differs by now, the
    plan is outdated. Likewise if the file is made from another one and that has changed:
    `source` is its name and its content at planning time.
    """

    name: str
    content: bytes
    expected: bytes | None
    source: tuple[str, bytes] | None = None


@dataclass(frozen=True)
class Delete:
    """Delete the file `name`, provided that its content is still `expected`, that at planning time."""

    name: str
    expected: bytes


Step: TypeAlias = Write | Delete


def plan_chained(
    listing: Listing,
    entry: Mapping[str, Any],
    conf_file_name: str | None = None,
    *,
    owned: str | None = None,
    links: Links = NO_LINKS,
    waits: bool = False,
) -> list[Step]:
    """Plan the steps, in order, after which the runtime runs our plugin; none if the directory is up to date.

    The arguments besides `entry` are those of `place`.

    Raises:
        NameInTheWayError: a file has to be moved away by hand first.
    """
    if choose(listing, conf_file_name).name is None and [*hidden_files(listing)]:
        return []  # which file the runtime uses is unknown
    target = place(listing, conf_file_name, owned=owned, links=links, waits=waits)
    deletions = _own_deleted(listing, but=target.name if target else None)
    if target is None:
        return deletions
    steps = [*_entry_in(listing, target, entry, links), *deletions]
    for name in _lists_of_others(listing):
        if target.is_own or edited_file(links, name) != edited_file(links, target.name):
            steps += _remove_from(listing, links, name)
    return steps + _without_standalone(listing)


def undone(listing: Listing, target: Place, entry: Mapping[str, Any]) -> str:
    """Describe what another program did to a directory for which `plan_chained` has steps, as a predicate: `changes …`.

    `target` is where our entry goes.
    """
    if target.is_own:
        return f"{'changes' if target.name in listing else 'deletes'} the plugin's own configuration"
    content = content_of(listing, target.name)
    if has_istios_entry(content):
        return f"replaces the plugin's entry with that of {ISTIOS}: uninstall one of the two (install-cni status)"
    if not conflist.has_entry(content):
        return "writes the file without the plugin's entry"
    if conflist.is_spliced(content, entry):
        return "adds the plugin's entry to other files"
    return "changes the plugin's entry, or adds plugins behind it"


def plan_standalone(listing: Listing, entry: Mapping[str, Any], name: str, links: Links = NO_LINKS) -> list[Step]:
    """Plan the steps after which our plugin has a configuration of its own, and no entry in a foreign one.

    Raises:
        NameInTheWayError: the file is another program's.
    """
    if is_valid(listing, name):  # our own is not a network's configuration
        raise NameInTheWayError(
            f"cannot create the plugin's own configuration {name}: saw a network's configuration of this name; set "
            "cniConfFileName to another one"
        )
    others = {each: content for each, content in listing.items() if each != name}
    return [*removal(others, links), *_write(listing, name, conflist.standalone(entry))]


def removal(listing: Listing, links: Links = NO_LINKS, *, keeps_istios: bool = False) -> list[Step]:
    """Plan the steps that remove our entry from every list, and delete each list of our own (F6, F11).

    `keeps_istios`: but not the entry of Istio's own agent, whose plugin file is there, too.
    """
    steps = _own_deleted(listing)
    for name in _lists_of_others(listing):
        if not (keeps_istios and has_istios_entry(content_of(listing, name))):
            steps += _remove_from(listing, links, name)
    return steps + _without_standalone(listing)


def _entry_in(listing: Listing, target: Place, entry: Mapping[str, Any], links: Links) -> list[Step]:
    """Bring the file that the runtime is meant to use to its desired content."""
    if target.is_own and is_valid(listing, target.source):
        source = content_of(listing, target.source)
        desired = conflist.own_list(source, target.source, target.name, entry)
        return _write(listing, target.name, desired, (target.source, source))
    content = content_of(listing, target.name)  # if it is our own, its source is missing or broken for now
    desired = conflist.splice(content, entry)
    return [] if desired == content else [Write(edited_file(links, target.name) or target.name, desired, content)]


def _own_away(listing: Listing) -> list[str]:
    """Find the lists of our own that were renamed."""
    return [name for name in _away(listing) if conflist.source_of(content_of(listing, name), name.removesuffix(AWAY))]


def _own_deleted(listing: Listing, but: str | None = None) -> list[Step]:
    """Delete the lists of our own, the last first: the one that the runtime uses goes when the others are gone."""
    names = [name for name in [*own_lists(listing), *_own_away(listing)] if name != but]
    return [Delete(name, content_of(listing, name)) for name in reversed(names)]


def _without_standalone(listing: Listing) -> list[Step]:
    found = [(name, listing[name]) for name in configurations(listing) if name.endswith(SINGLE)]
    return [
        Delete(name, content)
        for name, content in found
        if isinstance(content, bytes) and conflist.is_standalone(content)
    ]


def _remove_from(listing: Listing, links: Links, name: str) -> list[Step]:
    content, edited = content_of(listing, name), edited_file(links, name)
    if not conflist.has_entry(content) or edited is None:
        return []
    if edited != name and edited.endswith(LIST) and is_valid(listing, edited):
        return []  # the steps are planned under that name
    if conflist.read_list(content).others:
        return [Write(edited, conflist.remove(content), content)]
    return [Delete(name, content)] if edited == name else []  # a runtime would reject what is left of it


def _write(listing: Listing, name: str, content: bytes, source: tuple[str, bytes] | None = None) -> list[Step]:
    """Write one of our own files, unless it has this content."""
    current = listing.get(name)
    expected = current if isinstance(current, bytes) else None
    return [] if expected == content else [Write(name, content, expected, source)]


def _lists_of_others(listing: Listing) -> list[str]:
    ours = {*own_lists(listing), *_own_away(listing)}
    return [name for name in [*valid_lists(listing), *_away(listing)] if name not in ours]


def _away(listing: Listing) -> list[str]:
    """Find the valid lists that Cilium has renamed."""
    return sorted(name for name in listing if name.endswith(LIST + AWAY) and is_valid(listing, name))
