"""Which file of the CNI configuration directory the runtime takes, and the steps that bring our entry in and out of it.

Pure: a listing in, steps out. After each step the directory has a configuration that parses at the same place in the
order of names, and whoever starts again from there comes to the same end (F8).

- A single plugin's `NN-x.conf` becomes the list `NN-x.conf.conflist`: right behind it in the order, no other's
  `NN-x.conflist` in the way, and the name tells what to restore. Where `NN-x.conf` comes back beside it, the primary
  CNI has written it anew: the runtime takes it, so it is made into the list again.
- Our entry belongs into the one file that the runtime takes. It is taken out of the others, so that nothing stale waits
  for a later switch, and a plugin that delegates to them does not run ours twice. But where there is no file to take,
  all stay as they are: the one that is missing may be back in a moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from installer import conflist
from installer.netconf import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

LIST = ".conflist"
SINGLE = (".conf", ".json")

Listing: TypeAlias = "Mapping[str, bytes | OSError]"
"""The regular files of a directory by name: what each holds, or why it cannot be read."""


@dataclass(frozen=True)
class Write:
    """Put `content` into the file `name`, whole, by rename.

    `seen` is what the file held when this was planned, None if it was not there or could not be read: a file that holds
    something else by now was changed meanwhile, and the plan is out of date.
    """

    name: str
    content: bytes
    seen: bytes | None


@dataclass(frozen=True)
class Delete:
    """Take the file `name` away, as long as it holds what was `seen` when this was planned."""

    name: str
    seen: bytes


Step: TypeAlias = Write | Delete


@dataclass(frozen=True)
class Choice:
    """The file that the runtime takes.

    `name` is None where there is none, and only then `reason` says why; `skipped` has each file of the directory that
    is meant as a configuration and is none, with what is wrong with it.
    """

    name: str | None
    reason: str
    skipped: Mapping[str, str]


class NameInTheWayError(ValueError):
    """Another's file stands where a single plugin's configuration would have to become a list."""


def choose(listing: Listing, conf_file_name: str | None = None) -> Choice:
    """Find the file that the runtime takes: the first that parses, in byte order of the names (libcni's `ConfFiles`).

    CRI-O skips those before it that do not parse; containerd then takes none at all, until they are repaired.

    Args:
        listing: the directory.
        conf_file_name: the setting `cniConfFileName`: only this file, or the list that it was made into.
    """
    skipped = {}
    valid = []
    for name in _configurations(listing):
        try:
            _content(listing, name)
        except InvalidConfigError as error:
            skipped[name] = str(error)
        else:
            valid.append(name)
    if conf_file_name:
        valid = [name for name in valid if name in (conf_file_name, _list_name(conf_file_name))]
    if valid:
        return Choice(valid[0], "", skipped)
    return Choice(None, _why_none(skipped, conf_file_name), skipped)


def plan(listing: Listing, entry: Mapping[str, Any], conf_file_name: str | None = None) -> list[Step]:
    """Say what leads from the directory as it is to the one in which the runtime runs our plugin.

    Args:
        listing: the directory.
        entry: our entry, of type `istio-cni`.
        conf_file_name: the setting `cniConfFileName`.

    Returns:
        The steps in order; none where all is as it should be, or where there is no file to take.

    Raises:
        NameInTheWayError: a file has to be moved away by hand first.
    """
    chosen = choose(listing, conf_file_name).name
    if chosen is None:
        return []
    target = _list_name(chosen)
    content = _content(listing, chosen)
    steps: list[Step] = []
    if target == chosen:
        steps += _write(listing, target, conflist.splice(content, entry))
    else:
        _check_way(listing, chosen)
        steps += [*_write(listing, target, conflist.from_conf(content, entry)), Delete(chosen, content)]
    for name in _valid_lists(listing):
        if name != target:
            steps += _take_out(listing, name)
    return steps + _without_standalone(listing)


def undone(listing: Listing, name: str, entry: Mapping[str, Any]) -> str:
    """Say what others have done where `plan` has steps to go.

    Args:
        listing: the directory.
        name: the file that the runtime takes.
        entry: our entry.

    Returns:
        What they do, in words: `changes …`.
    """
    content = _content(listing, name)
    if not name.endswith(LIST) or not conflist.has_entry(content):
        return "writes the file without the plugin's entry"
    if conflist.is_spliced(content, entry):
        return "adds the plugin's entry to other files"
    return "changes the plugin's entry, or adds plugins behind it"


def plan_standalone(listing: Listing, entry: Mapping[str, Any], name: str) -> list[Step]:
    """Say what leads to the directory in which our plugin has a configuration of its own, and is in nobody else's.

    Args:
        listing: the directory.
        entry: our entry, of type `istio-cni`.
        name: of the file.
    """
    others = {each: content for each, content in listing.items() if each != name}
    return [*removal(others), *_write(listing, name, conflist.standalone(entry))]


def removal(listing: Listing) -> list[Step]:
    """Say what takes our entry out of every list of the directory and puts single configurations back (F6, F11).

    A configuration of our own goes as a whole.

    A list to which others have added a plugin stays a list. A single configuration that is there again is kept.
    """
    steps: list[Step] = []
    for name in _valid_lists(listing):
        content = _content(listing, name)
        single = name.removesuffix(LIST)
        original = conflist.restore(content) if single.endswith(SINGLE) else None
        if original is None:
            steps += _take_out(listing, name)
        elif single not in listing:
            steps += [*_write(listing, single, original), Delete(name, content)]
        elif _is_valid(listing, single):
            steps += [Delete(name, content)]
        else:  # broken: the list has to stay, as it is what the runtime takes
            steps += _take_out(listing, name)
    return steps + _without_standalone(listing)


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


def _take_out(listing: Listing, name: str) -> list[Step]:
    content = _content(listing, name)
    if conflist.has_others(content):
        return _write(listing, name, conflist.remove(content))
    return [Delete(name, content)]  # nothing would be left of it that a runtime takes


def _write(listing: Listing, name: str, content: bytes) -> list[Step]:
    there = listing.get(name)
    seen = there if isinstance(there, bytes) else None
    return [] if seen == content else [Write(name, content, seen)]


def _check_way(listing: Listing, single: str) -> None:
    """Make sure that the name of the list that a single configuration becomes is free, and the next in the order."""
    target = _list_name(single)
    between = [name for name in _configurations(listing) if _order(single) < _order(name) < _order(target)]
    if _is_valid(listing, target) and not conflist.is_from_conf(_content(listing, target)):
        between.append(target)
    if between:
        raise NameInTheWayError(
            f"{single} has to become the list {target}; saw {', '.join(between)}, expected no other configuration from "
            "the one name to the other: move it out of the directory or rename it"
        )


def _configurations(listing: Listing) -> list[str]:
    return sorted((name for name in listing if name.endswith((LIST, *SINGLE))), key=_order)


def _valid_lists(listing: Listing) -> list[str]:
    return [name for name in _configurations(listing) if name.endswith(LIST) and _is_valid(listing, name)]


def _order(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")  # as Go sorts: by bytes


def _list_name(name: str) -> str:
    return name + LIST if name.endswith(SINGLE) else name


def _is_valid(listing: Listing, name: str) -> bool:
    try:
        _content(listing, name)
    except (InvalidConfigError, KeyError):
        return False
    return True


def _content(listing: Listing, name: str) -> bytes:
    """Give what a file holds, if a runtime takes it."""
    content = listing[name]
    if isinstance(content, OSError):
        raise InvalidConfigError(f"saw an unreadable file ({content.strerror or content}), expected a configuration")
    if name.endswith(LIST):
        conflist.check_list(content)
    else:
        conflist.check_conf(content)
    return content
