"""Which configuration the runtime uses, and where our entry belongs.

- A single plugin's `NN-x.conf` is never changed (D11). A list of our own is made from it and sorts right before it in the
  order. The same is done for a list that cannot be edited in place because it is a link, and for any list if `owned` is set.
- A list of our own is deleted when its source is, or when another foreign configuration sorts first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from installer.cniconfig import conflist
from installer.cniconfig.listing import (
    LIST,
    NO_LINKS,
    SINGLE,
    Links,
    Listing,
    configurations,
    content_of,
    hidden_files,
    is_broken,
    is_valid,
    order,
    valid_lists,
)
from installer.cniconfig.netconf import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_OTHER = {"conf": "conflist", "conflist": "conf"}
OWN = "-istio-cni.conflist"  # appended to a name without its suffix: "-" sorts before ".", whatever the name


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
        conf_file_name: the setting `cniConfFileName`: only this file, or the one from which a list of this name is made. If
            there is no such file, the one that has `.conf` in place of `.conflist`, or the other way round.
    """
    own = own_lists(listing)
    conf_file_name = _existing_name(listing, conf_file_name)
    skipped, valid = {}, []
    for name in configurations(listing):
        try:
            content_of(listing, name)
        except InvalidConfigError as error:
            skipped[name] = str(error)
        else:
            valid += [] if name in own else [name]
    if conf_file_name:
        valid = [name for name in valid if conf_file_name in _names(name)]
    elif hidden := next((name for name in hidden_files(listing) if not valid or order(name) < order(valid[0])), None):
        return Choice(None, f"{hidden}: {skipped[hidden]}", skipped)
    if not valid:
        return Choice(None, _why_none(skipped, conf_file_name), skipped)
    if conflist.delegates_to_us(content_of(listing, valid[0])):
        sources = {source for name, source in own.items() if is_valid(listing, name)}
        copied = (name for name in valid[1:] if name in sources or _has_entry(listing, name))
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
    """Find the place of our entry; None if no configuration is usable.

    With `owned` it is always in a list of our own, by this name if that sorts first. With `waits` a list of our own stays
    though its source is gone.

    Raises:
        NameInTheWayError: a file has to be moved away by hand first.
    """
    conf_file_name = _existing_name(listing, conf_file_name)
    chosen = choose(listing, conf_file_name).name
    for name, source in own_lists(listing).items():
        if not conf_file_name and any(order(each) < order(name) for each in hidden_files(listing)):
            continue  # which file the runtime uses is unknown
        stays = waits if source not in listing else not is_valid(listing, source)
        if (
            stays
            and conf_file_name in (None, *_names(source))
            and (chosen is None or max(order(name), order(source)) < order(chosen))
        ):
            return Place(name, source)
    if chosen is None:
        return None
    if owned or edited_file(links, chosen) is None:
        return Place(_own_name(listing, chosen, owned, links), chosen)
    return Place(chosen, chosen)


def own_lists(listing: Listing) -> Mapping[str, str]:
    """Find the lists of our own, each with its source."""
    found = ((name, conflist.source_of(content_of(listing, name), name)) for name in valid_lists(listing))
    return {name: source for name, source in found if source is not None}


def _own_name(listing: Listing, source: str, preferred: str | None, links: Links) -> str:
    """Choose the name of a list of our own: it sorts before its source, and after every file before that."""
    own, (_, computed) = own_lists(listing), _names(source)
    for name in [preferred, computed] if preferred else [computed]:
        in_the_way = name in links or (name in listing and name not in own and not is_broken(listing, name))
        if in_the_way or order(name) >= order(source):
            continue
        between = (each for each in listing if order(name) < order(each) < order(source) and each not in own)
        if not any(is_valid(listing, each) for each in between):
            return name
    raise NameInTheWayError(
        f"cannot create {computed}, the conflist with {source} and the plugin's entry: saw other configurations from that "
        f"name to {source}, expected none; move them out of the directory or rename them"
    )


def _existing_name(listing: Listing, name: str | None) -> str | None:
    """Return a configured name, or the same with the other suffix if only that file is there: primaries change it."""
    if not name or any(name in _names(each) for each in configurations(listing)):
        return name
    stem, _, suffix = name.rpartition(".")
    other = f"{stem}.{_OTHER.get(suffix, suffix)}"
    return other if other in listing else name


def _names(source: str) -> tuple[str, str]:
    """Return the names by which a setting may ask for a configuration: its own, and that of the list made from it."""
    return source, source[: source.rindex(".")] + OWN


def edited_file(links: Links, name: str) -> str | None:
    """Return the file to edit in order to change a configuration; None: no file may be edited."""
    target = links.get(name, name)
    return None if target is None or name.endswith(SINGLE) or target.endswith(SINGLE) else target


def _why_none(skipped: Mapping[str, str], conf_file_name: str | None) -> str:
    if conf_file_name and conf_file_name in skipped:
        return f"{conf_file_name}: {skipped[conf_file_name]}"
    if conf_file_name:
        return f"saw no {conf_file_name}, expected the network's configuration by this name (cniConfFileName)"
    seen = f"none valid among {len(skipped)}" if skipped else "none"
    return f"configuration files: saw {seen}, expected the network's *.conflist, *.conf or *.json"


def _has_entry(listing: Listing, name: str) -> bool:
    return name.endswith(LIST) and conflist.has_entry(content_of(listing, name))
