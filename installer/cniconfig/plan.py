"""Which configuration the runtime takes, where our entry goes for that, and the steps that bring it in and out.

Pure: a listing in, steps out. After each step the directory has the same network's configuration first in the order of
names, and whoever starts again from there comes to the same end (F8).

- A list of others gets our entry (`conflist.splice`), and gives it back.
- A single plugin's `NN-x.conf` is never changed (D11). A list of our own is made from it, which comes right before it in the
  order: it follows each change, and goes when the `.conf` goes or another configuration of others comes first. The same is
  done with a list that cannot be edited where it is, as it is a link, and with any where `owned` asks for it.
- Our entry is taken out of all other files, so that nothing stale waits for a later switch, and a plugin that delegates to
  them does not run ours twice. But where there is no configuration to take, lists of others stay as they are: the one that is
  missing may be back in a moment.
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
OWN = "-istio-cni.conflist"  # after a name without its ending: "-" comes before "." in the order, whatever the name
AWAY = ".cilium_bak"  # after the names of others' files, which Cilium renames: no runtime reads them as long as they have it
OUT_OF_SIGHT = errno.EXDEV  # of a listing's errors: the runtime may well read the file

Listing: TypeAlias = "Mapping[str, bytes | OSError]"
"""The regular files of a directory by name: what each holds, or why it cannot be read."""

Links: TypeAlias = "Mapping[str, str | None]"
"""The symbolic links among them: the file of the same directory that is meant; None: another place."""

NO_LINKS: Links = MappingProxyType({})


@dataclass(frozen=True)
class Write:
    """Put `content` into the file `name`, whole, by rename.

    `seen` is what the file held when this was planned, None if it was not there or could not be read: a file that holds
    something else by now was changed meanwhile, and the plan is out of date. Likewise if it is made from another file, the
    `source`, and that has changed: its name, and what it held.
    """

    name: str
    content: bytes
    seen: bytes | None
    source: tuple[str, bytes] | None = None


@dataclass(frozen=True)
class Delete:
    """Take the file `name` away, as long as it holds what was `seen` when this was planned."""

    name: str
    seen: bytes


Step: TypeAlias = Write | Delete


@dataclass(frozen=True)
class Choice:
    """The configuration of others that the runtime takes.

    `name` is None where there is none, and only then `reason` says why; `skipped` has each file of the directory that
    is meant as a configuration and is none, with what is wrong with it.
    """

    name: str | None
    reason: str
    skipped: Mapping[str, str]


@dataclass(frozen=True)
class Place:
    """Where our entry goes.

    Attributes:
        name: of the file that the runtime is to take.
        source: the configuration of others that it is, or was made from.
    """

    name: str
    source: str

    @property
    def is_own(self) -> bool:
        """Whether it is a list of our own."""
        return self.name != self.source


class NameInTheWayError(ValueError):
    """Another's file stands where a list of our own would have to be."""


def choose(listing: Listing, conf_file_name: str | None = None) -> Choice:
    """Find the configuration that the runtime would take without us.

    That is the first that parses, in byte order of the names (libcni's `ConfFiles`). CRI-O skips those before it that do not
    parse; containerd then takes none at all, until they are repaired. Where Multus has copied our
    entry into its own configuration, that is complete, and the list that it has copied is taken.

    Args:
        listing: the directory.
        conf_file_name: the setting `cniConfFileName`: only this file.
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
        wanted = (conf_file_name, own.get(conf_file_name), _converted_name(conf_file_name))
        valid = [name for name in valid if name in wanted]
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
    """Say where our entry goes.

    Args:
        listing: the directory.
        conf_file_name: the setting `cniConfFileName`.
        owned: a list of our own is wanted whatever there is, by this name where that comes first.
        links: those among the files.
        waits: a list of our own stays though its source is gone.

    Returns:
        None where there is no configuration to take.

    Raises:
        NameInTheWayError: a file has to be moved away by hand first.
    """
    chosen = choose(_converted_back(listing), conf_file_name).name
    for name, source in _own(listing).items():
        if not conf_file_name and any(_order(each) < _order(name) for each in _hidden(listing)):
            continue  # who knows what the runtime takes
        stays = waits if source not in listing else not _is_valid(listing, source)
        if (
            stays
            and conf_file_name in (None, source, name)
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
    """Say what leads from the directory as it is to the one in which the runtime runs our plugin.

    Args:
        listing: the directory.
        entry: our entry, of type `istio-cni`.
        conf_file_name: as for `place`, as are the others.
        owned: likewise.
        links: likewise.
        waits: likewise.

    Returns:
        The steps in order; none where all is as it should be.

    Raises:
        NameInTheWayError: a file has to be moved away by hand first.
    """
    if choose(listing, conf_file_name).name is None and [*_hidden(listing)]:
        return []  # who knows what the runtime takes
    to = place(listing, conf_file_name, owned=owned, links=links, waits=waits)
    own = [name for name in _own(listing) if to is None or name != to.name]
    gone: list[Step] = [Delete(name, _content(listing, name)) for name in [*own, *_own_away(listing)]]
    if to is None:
        return gone
    steps = [*_entry_in(listing, to, entry, links), *_turned_back(listing), *gone]
    for name in _lists_of_others(listing):
        if to.is_own or _edited(links, name) != _edited(links, to.name):
            steps += _take_out(listing, links, name)
    return steps + _without_standalone(listing)


def undone(listing: Listing, to: Place, entry: Mapping[str, Any]) -> str:
    """Say what others have done where `plan` has steps to go.

    Args:
        listing: the directory.
        to: where our entry goes.
        entry: our entry.

    Returns:
        What they do, in words: `changes …`.
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
    """Say what leads to the directory in which our plugin has a configuration of its own, and is in nobody else's.

    Args:
        listing: the directory.
        entry: our entry, of type `istio-cni`.
        name: of the file.
        links: those among the files.

    Raises:
        NameInTheWayError: the file is somebody else's.
    """
    if _is_valid(listing, name):  # ours is no network of its own
        raise NameInTheWayError(
            f"the plugin's own configuration would be {name}; saw a network's configuration by this name: set cniConfFileName "
            "to another one"
        )
    others = {each: content for each, content in listing.items() if each != name}
    return [*removal(others, links), *_write(listing, name, conflist.standalone(entry))]


def removal(listing: Listing, links: Links = NO_LINKS) -> list[Step]:
    """Say what takes our entry out of every list of the directory, and each list of our own out of the directory (F6, F11)."""
    own: list[Step] = [Delete(name, _content(listing, name)) for name in [*_own(listing), *_own_away(listing)]]
    steps = [*_turned_back(listing), *own]
    for name in _lists_of_others(listing):
        steps += _take_out(listing, links, name)
    return steps + _without_standalone(listing)


def _entry_in(listing: Listing, to: Place, entry: Mapping[str, Any], links: Links) -> list[Step]:
    """Make the file that the runtime is to take what it is to be."""
    before = _converted_back(listing)
    if to.is_own and _is_valid(before, to.source):
        wanted = conflist.own_list(_content(before, to.source), to.source, to.name, entry)
        read = to.source if to.source in listing else to.source + LIST
        there = listing.get(to.name)
        seen = there if isinstance(there, bytes) else None
        return [] if wanted == seen else [Write(to.name, wanted, seen, (read, _content(listing, read)))]
    content = _content(listing, to.name)  # if it is our own, its source is gone or broken for now
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


def _own_name(listing: Listing, source: str, preferred: str | None, links: Links) -> str:
    """Choose the name of a list of our own: before its source in the order, and behind all that comes before that."""
    own = _own(listing)
    computed = source[: source.rindex(".")] + OWN
    for name in [preferred, computed] if preferred else [computed]:
        in_the_way = name in links or (name in listing and name not in own and not _is_broken(listing, name))
        if in_the_way or _order(name) >= _order(source):
            continue
        between = (each for each in listing if _order(name) < _order(each) < _order(source) and each not in own)
        if not any(_is_valid(listing, each) for each in between):
            return name
    raise NameInTheWayError(
        f"{source} is left as it is, and {computed} would be made from it with the plugin's entry; saw other configurations "
        f"from that name to {source}: move them out of the directory or rename them"
    )


def _edited(links: Links, name: str) -> str | None:
    """Say which file is changed to change a configuration; None: none may be."""
    meant = links.get(name, name)
    return None if meant is None or name.endswith(SINGLE) or meant.endswith(SINGLE) else meant


def _converted_name(name: str) -> str | None:
    single = name.removesuffix(LIST)
    return single if single != name and single.endswith(SINGLE) else None


def _converted(listing: Listing) -> Mapping[str, bytes]:
    """Find the lists that an agent of an earlier build has put in the place of single configurations: what these held."""
    found = {}
    for name in _configurations(listing):
        single = _converted_name(name)
        if single and _is_valid(listing, name) and (single not in listing or _is_valid(listing, single)):
            original = conflist.converted_from(_content(listing, name))
            if original is not None:
                found[name] = original
    return found


def _converted_back(listing: Listing) -> Listing:
    """Say what the directory is like without these lists."""
    converted = _converted(listing)
    singles = {name.removesuffix(LIST): original for name, original in converted.items()}
    return singles | {name: content for name, content in listing.items() if name not in converted}


def _turned_back(listing: Listing) -> list[Step]:
    steps: list[Step] = []
    for name, original in _converted(listing).items():
        single, content = name.removesuffix(LIST), _content(listing, name)
        if single not in listing:
            steps.append(Write(single, original, None, (name, content)))
        steps.append(Delete(name, content))
    return steps


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
        return []  # done by that name
    if conflist.has_others(content):
        return [Write(edited, conflist.remove(content), content)]
    return [Delete(name, content)] if edited == name else []  # nothing would be left of it that a runtime takes


def _write(listing: Listing, name: str, content: bytes) -> list[Step]:
    there = listing.get(name)
    seen = there if isinstance(there, bytes) else None
    return [] if seen == content else [Write(name, content, seen)]


def _configurations(listing: Listing) -> list[str]:
    return sorted((name for name in listing if name.endswith((LIST, *SINGLE))), key=_order)


def _lists_of_others(listing: Listing) -> list[str]:
    ours = {*_own(listing), *_own_away(listing), *_converted(listing)}
    away = sorted(name for name in listing if name.endswith(LIST + AWAY) and _is_valid(listing, name))
    return [name for name in [*_lists(listing), *away] if name not in ours]


def _lists(listing: Listing) -> list[str]:
    return [name for name in _configurations(listing) if name.endswith(LIST) and _is_valid(listing, name)]


def _hidden(listing: Listing) -> list[str]:
    """Find the files that the runtime may read and we cannot."""
    found = ((name, listing[name]) for name in _configurations(listing))
    return [name for name, content in found if isinstance(content, OSError) and content.errno == OUT_OF_SIGHT]


def _order(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")  # as Go sorts: by bytes


def _has_entry(listing: Listing, name: str) -> bool:
    return name.endswith(LIST) and conflist.has_entry(_content(listing, name))


def _is_valid(listing: Listing, name: str) -> bool:
    try:
        _content(listing, name)
    except (InvalidConfigError, KeyError):
        return False
    return True


def _is_broken(listing: Listing, name: str) -> bool:
    """Tell whether a file is no configuration, though it can be read."""
    return isinstance(listing[name], bytes) and not _is_valid(listing, name)


def _content(listing: Listing, name: str) -> bytes:
    """Give what a file holds, if a runtime takes it."""
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
