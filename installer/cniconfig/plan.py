"""Which configuration the runtime uses, where our entry belongs, and the steps that add and remove it.

Pure: a listing in, steps out. After each step the same network's configuration is first in the directory's order of
names, and a restart from there reaches the same end (F8).

- A foreign list gets our entry (`conflist.splice`) and loses it again.
- A single plugin's `NN-x.conf` is never changed (D11). A list of our own is made from it and sorts right before it in the
  order: it follows each change, and is deleted when the `.conf` is or another foreign configuration sorts first. The same is
  done for a list that cannot be edited in place because it is a link, and for any list if `owned` is set.
- Our entry is removed from all other files, so that no stale entry waits for a later switch, and a plugin that delegates to
  them does not run ours twice. But if no configuration is usable, foreign lists stay unchanged: the one that is
  missing may return at any moment.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from installer.cniconfig import conflist
from installer.cniconfig.meshes import ISTIOS, has_istios_entry
from installer.cniconfig.netconf import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

LIST = ".conflist"
SINGLE = (".conf", ".json")
OWN = "-istio-cni.conflist"  # appended to a name without its suffix: "-" sorts before ".", whatever the name
AWAY = ".cilium_bak"  # appended by Cilium to the names of foreign files: no runtime reads them under such a name
OUT_OF_SIGHT = errno.EXDEV  # the error of a file that the agent cannot read but the runtime may

Listing: TypeAlias = "Mapping[str, bytes | OSError]"
"""The regular files of a directory by name: each one's content, or why it cannot be read."""

Links: TypeAlias = "Mapping[str, str | None]"
"""The symbolic links among them: the target in the same directory; None: a target elsewhere."""

NO_LINKS: Links = MappingProxyType({})


@dataclass(frozen=True)
class Write:
    """Replace the file `name` with `content` atomically, by rename.

    `seen` is the file's content at planning time, None if it was missing or unreadable: if the content differs by now, the
    plan is outdated. Likewise if the file is made from another one and that has changed:
    `source` is its name and its content at planning time.
    """

    name: str
    content: bytes
    seen: bytes | None
    source: tuple[str, bytes] | None = None


@dataclass(frozen=True)
class Delete:
    """Delete the file `name`, provided that its content is still `seen`, that at planning time."""

    name: str
    seen: bytes


Step: TypeAlias = Write | Delete


@dataclass(frozen=True)
class Choice:
    """The foreign configuration that the runtime uses.

    `name` is None if there is none, and only then `reason` says why; `skipped` maps each file that
    is named like a configuration but is invalid to what is wrong with it.
    """

    name: str | None
    reason: str
    skipped: Mapping[str, str]


@dataclass(frozen=True)
class Place:
    """The place of our entry.

    Attributes:
        name: the file that the runtime is meant to use.
        source: the foreign configuration that it is, or is made from.
    """

    name: str
    source: str

    @property
    def is_own(self) -> bool:
        """Whether it is a list of our own."""
        return self.name != self.source


class NameInTheWayError(ValueError):
    """A foreign file has the name that a list of our own needs."""


def choose(listing: Listing, conf_file_name: str | None = None) -> Choice:
    """Find the configuration that the runtime would use without us.

    That is the first valid one, in byte order of the names (libcni's `ConfFiles`). CRI-O skips invalid ones before it;
    containerd then uses none at all until they are repaired. If Multus has copied our
    entry into its own configuration, that is complete, and the list that it copied is the choice.

    Args:
        listing: the directory.
        conf_file_name: the setting `cniConfFileName`: only this file, or the one from which a list of this name is made.
    """
    own = _own(listing)
    skipped, valid = {}, []
    for name in _configurations(listing):
        try:
            _content(listing, name)
        except InvalidConfigError as error:
            skipped[name] = str(error)
        else:
            valid += [] if name in own else [name]
    if conf_file_name:
        valid = [name for name in valid if conf_file_name in _names(name)]
    elif hidden := next((name for name in _hidden(listing) if not valid or _order(name) < _order(valid[0])), None):
        return Choice(None, f"{hidden}: {skipped[hidden]}", skipped)
    if not valid:
        return Choice(None, _why_none(skipped, conf_file_name), skipped)
    if conflist.delegates_to_us(_content(listing, valid[0])):
        made_of = {source for name, source in own.items() if _is_valid(listing, name)}
        copied = (name for name in valid[1:] if name in made_of or _has_entry(listing, name))
        return Choice(next(copied, (valid[1:] or valid)[0]), "", skipped)
    return Choice(valid[0], "", skipped)


def place(
    listing: Listing,
    conf_file_name: str | None = None,
    *,
    owned: str | None = None,
    links: Links = NO_LINKS,
    waits: bool = False,
) -> Place | None:
    """Find the place of our entry.

    Args:
        listing: the directory.
        conf_file_name: the setting `cniConfFileName`.
        owned: always use a list of our own, by this name if that sorts first.
        links: those among the files.
        waits: a list of our own stays though its source is gone.

    Returns:
        None if no configuration is usable.

    Raises:
        NameInTheWayError: a file has to be moved away by hand first.
    """
    chosen = choose(listing, conf_file_name).name
    for name, source in _own(listing).items():
        if not conf_file_name and any(_order(each) < _order(name) for each in _hidden(listing)):
            continue  # which file the runtime uses is unknown
        stays = waits if source not in listing else not _is_valid(listing, source)
        if (
            stays
            and conf_file_name in (None, *_names(source))
            and (chosen is None or max(_order(name), _order(source)) < _order(chosen))
        ):
            return Place(name, source)
    if chosen is None:
        return None
    if owned or _edited(links, chosen) is None:
        return Place(_own_name(listing, chosen, owned, links), chosen)
    return Place(chosen, chosen)


def plan(
    listing: Listing,
    entry: Mapping[str, Any],
    conf_file_name: str | None = None,
    *,
    owned: str | None = None,
    links: Links = NO_LINKS,
    waits: bool = False,
) -> list[Step]:
    """Plan the steps after which the runtime runs our plugin.

    Args:
        listing: the directory.
        entry: our entry, of type `istio-cni`.
        conf_file_name: as for `place`, as are the others.
        owned: likewise.
        links: likewise.
        waits: likewise.

    Returns:
        The steps in order; none if the directory is up to date.

    Raises:
        NameInTheWayError: a file has to be moved away by hand first.
    """
    if choose(listing, conf_file_name).name is None and [*_hidden(listing)]:
        return []  # which file the runtime uses is unknown
    to = place(listing, conf_file_name, owned=owned, links=links, waits=waits)
    gone = _own_deleted(listing, but=to.name if to else None)
    if to is None:
        return gone
    steps = [*_entry_in(listing, to, entry, links), *gone]
    for name in _lists_of_others(listing):
        if to.is_own or _edited(links, name) != _edited(links, to.name):
            steps += _take_out(listing, links, name)
    return steps + _without_standalone(listing)


def undone(listing: Listing, to: Place, entry: Mapping[str, Any]) -> str:
    """Describe what another program did to a directory for which `plan` has steps.

    Args:
        listing: the directory.
        to: where our entry goes.
        entry: our entry.

    Returns:
        What it does, as a predicate: `changes …`.
    """
    if to.is_own:
        return f"{'changes' if to.name in listing else 'deletes'} the plugin's own configuration"
    content = _content(listing, to.name)
    if has_istios_entry(content):
        return f"replaces the plugin's entry with that of {ISTIOS}: uninstall one of the two (install-cni status)"
    if not conflist.has_entry(content):
        return "writes the file without the plugin's entry"
    if conflist.is_spliced(content, entry):
        return "adds the plugin's entry to other files"
    return "changes the plugin's entry, or adds plugins behind it"


def plan_standalone(listing: Listing, entry: Mapping[str, Any], name: str, links: Links = NO_LINKS) -> list[Step]:
    """Plan the steps after which our plugin has a configuration of its own, and no entry in a foreign one.

    Args:
        listing: the directory.
        entry: our entry, of type `istio-cni`.
        name: of the file.
        links: those among the files.

    Raises:
        NameInTheWayError: the file is another program's.
    """
    if _is_valid(listing, name):  # our own is not a network's configuration
        raise NameInTheWayError(
            f"cannot create the plugin's own configuration {name}: saw a network's configuration of this name; set "
            "cniConfFileName to another one"
        )
    others = {each: content for each, content in listing.items() if each != name}
    return [*removal(others, links), *_write(listing, name, conflist.standalone(entry))]


def removal(listing: Listing, links: Links = NO_LINKS) -> list[Step]:
    """Plan the steps that remove our entry from every list, and delete each list of our own (F6, F11)."""
    steps = _own_deleted(listing)
    for name in _lists_of_others(listing):
        steps += _take_out(listing, links, name)
    return steps + _without_standalone(listing)


def _entry_in(listing: Listing, to: Place, entry: Mapping[str, Any], links: Links) -> list[Step]:
    """Bring the file that the runtime is meant to use to its desired content."""
    if to.is_own and _is_valid(listing, to.source):
        source = _content(listing, to.source)
        wanted = conflist.own_list(source, to.source, to.name, entry)
        there = listing.get(to.name)
        seen = there if isinstance(there, bytes) else None
        return [] if wanted == seen else [Write(to.name, wanted, seen, (to.source, source))]
    content = _content(listing, to.name)  # if it is our own, its source is missing or broken for now
    wanted = conflist.splice(content, entry)
    return [] if wanted == content else [Write(_edited(links, to.name) or to.name, wanted, content)]


def _own(listing: Listing) -> Mapping[str, str]:
    """Find the lists of our own, each with its source."""
    found = ((name, conflist.source_of(_content(listing, name), name)) for name in _lists(listing))
    return {name: source for name, source in found if source is not None}


def _own_away(listing: Listing) -> list[str]:
    """Find the lists of our own that were renamed."""
    names = (name for name in listing if name.endswith(LIST + AWAY) and _is_valid(listing, name))
    return [name for name in names if conflist.source_of(_content(listing, name), name.removesuffix(AWAY))]


def _own_deleted(listing: Listing, but: str | None = None) -> list[Step]:
    """Delete the lists of our own, the last first: the one that the runtime uses goes when the others are gone."""
    names = [name for name in [*_own(listing), *_own_away(listing)] if name != but]
    return [Delete(name, _content(listing, name)) for name in reversed(names)]


def _own_name(listing: Listing, source: str, preferred: str | None, links: Links) -> str:
    """Choose the name of a list of our own: it sorts before its source, and after every file before that."""
    own, (_, computed) = _own(listing), _names(source)
    for name in [preferred, computed] if preferred else [computed]:
        in_the_way = name in links or (name in listing and name not in own and not _is_broken(listing, name))
        if in_the_way or _order(name) >= _order(source):
            continue
        between = (each for each in listing if _order(name) < _order(each) < _order(source) and each not in own)
        if not any(_is_valid(listing, each) for each in between):
            return name
    raise NameInTheWayError(
        f"cannot create {computed}, the conflist with {source} and the plugin's entry: saw other configurations from that "
        f"name to {source}, expected none; move them out of the directory or rename them"
    )


def _names(source: str) -> tuple[str, str]:
    """Return the names by which a setting may ask for a configuration: its own, and that of the list made from it."""
    return source, source[: source.rindex(".")] + OWN


def _edited(links: Links, name: str) -> str | None:
    """Return the file to edit in order to change a configuration; None: no file may be edited."""
    meant = links.get(name, name)
    return None if meant is None or name.endswith(SINGLE) or meant.endswith(SINGLE) else meant


def _without_standalone(listing: Listing) -> list[Step]:
    found = [(name, listing[name]) for name in _configurations(listing) if name.endswith(SINGLE)]
    return [
        Delete(name, content)
        for name, content in found
        if isinstance(content, bytes) and conflist.is_standalone(content)
    ]


def _why_none(skipped: Mapping[str, str], conf_file_name: str | None) -> str:
    if conf_file_name and conf_file_name in skipped:
        return f"{conf_file_name}: {skipped[conf_file_name]}"
    if conf_file_name:
        return f"saw no {conf_file_name}, expected the network's configuration by this name (cniConfFileName)"
    seen = f"none valid among {len(skipped)}" if skipped else "none"
    return f"configuration files: saw {seen}, expected the network's *.conflist, *.conf or *.json"


def _take_out(listing: Listing, links: Links, name: str) -> list[Step]:
    content, edited = _content(listing, name), _edited(links, name)
    if not conflist.has_entry(content) or edited is None:
        return []
    if edited != name and edited.endswith(LIST) and _is_valid(listing, edited):
        return []  # the steps are planned under that name
    if conflist.has_others(content):
        return [Write(edited, conflist.remove(content), content)]
    return [Delete(name, content)] if edited == name else []  # a runtime would reject what is left of it


def _write(listing: Listing, name: str, content: bytes) -> list[Step]:
    there = listing.get(name)
    seen = there if isinstance(there, bytes) else None
    return [] if seen == content else [Write(name, content, seen)]


def _configurations(listing: Listing) -> list[str]:
    return sorted((name for name in listing if name.endswith((LIST, *SINGLE))), key=_order)


def _lists_of_others(listing: Listing) -> list[str]:
    ours = {*_own(listing), *_own_away(listing)}
    away = sorted(name for name in listing if name.endswith(LIST + AWAY) and _is_valid(listing, name))
    return [name for name in [*_lists(listing), *away] if name not in ours]


def _lists(listing: Listing) -> list[str]:
    return [name for name in _configurations(listing) if name.endswith(LIST) and _is_valid(listing, name)]


def _hidden(listing: Listing) -> list[str]:
    """Find the files that the runtime may be able to read, but not the agent."""
    found = ((name, listing[name]) for name in _configurations(listing))
    return [name for name, content in found if isinstance(content, OSError) and content.errno == OUT_OF_SIGHT]


def _order(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")  # Go sorts by bytes


def _has_entry(listing: Listing, name: str) -> bool:
    return name.endswith(LIST) and conflist.has_entry(_content(listing, name))


def _is_valid(listing: Listing, name: str) -> bool:
    try:
        _content(listing, name)
    except (InvalidConfigError, KeyError):
        return False
    return True


def _is_broken(listing: Listing, name: str) -> bool:
    """Return whether a file is readable, but no valid configuration."""
    return isinstance(listing[name], bytes) and not _is_valid(listing, name)


def _content(listing: Listing, name: str) -> bytes:
    """Return the content of a file, if a runtime accepts it."""
    content = listing[name]
    if isinstance(content, OSError):
        raise InvalidConfigError(f"saw an unreadable file ({content.strerror or content}), expected a configuration")
    if name.endswith((LIST, LIST + AWAY)):
        conflist.check_list(content)
    elif name.endswith(SINGLE):
        conflist.check_conf(content)
    else:
        raise InvalidConfigError("saw a file that no runtime reads")
    return content
