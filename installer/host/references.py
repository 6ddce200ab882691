"""Which files of cniConfDir still name the plugin, so that its file has to stay in cniBinDir (F34).

Others copy our entry: Multus into `delegates` of its own configuration, an administrator into a file of a subdirectory. A
runtime that reads such a copy and finds no plugin file starts and stops no pod. So the file is deleted only when no
configuration names it; if that is unclear because a file is broken or unreadable, it stays.

Anything outside this directory is not searched: NetworkAttachmentDefinitions of the API, and other directories of plugins.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.config.settings import PLUGIN
from installer.config.value_types import CONF_SUFFIXES
from installer.terminal.words import first_few

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from installer.host.directory import Directory

DEPTH = 4  # directories below cniConfDir: drop-ins (`<network>/*.conf`) and multus.d are one below it
MOST_NAMES = 10_000  # in all directories together
MOST_BYTES = 32 << 20  # of all configurations together
EMBEDDED = 4  # texts of JSON in strings of JSON
NAMED = 3  # files, in a message

_ESCAPE = re.compile(rb"\\+u00([0-7][0-9a-fA-F])")  # more than one backslash: of JSON in a string of JSON


class Reference(NamedTuple):
    """A file that names the plugin, by its path below cniConfDir; `doubt` says why it may, if that is unclear."""

    file: str
    doubt: str = ""


class _TooLargeError(Exception):
    """The search exceeds its bounds; the message says which."""


class _Budget:
    """The remaining search budget."""

    def __init__(self) -> None:
        self.names, self.bytes = MOST_NAMES, MOST_BYTES
        self._seen: set[tuple[int, int]] = set()

    def is_new(self, info: os.stat_result) -> bool:
        """Whether a directory has not been searched yet: a link may lead back to it."""
        key = info.st_dev, info.st_ino
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def take(self, *, names: int = 0, size: int = 0) -> None:
        self.names -= names
        self.bytes -= size
        if self.names < 0:
            raise _TooLargeError(f"more than {MOST_NAMES} names are in it, expected some dozens")
        if self.bytes < 0:
            raise _TooLargeError(f"its configurations have more than {MOST_BYTES} bytes, expected some kilobytes")


def references(folder: Directory) -> list[Reference]:
    """Find the files below cniConfDir that name the plugin, or may do so; call it after the removal of our own entries."""
    found: list[Reference] = []
    try:
        found.extend(_search(folder, "", _Budget()))
    except _TooLargeError as error:
        found.append(Reference(str(folder.path), str(error)))
    return found


def why_it_stays(plugin: Path, folder: Path, found: Sequence[Reference]) -> str:
    """Describe which files require the plugin file, and the remedy.

    `folder` is cniConfDir; `found` has at least one, in the order of the message.
    """
    files = first_few([f"{folder / each.file}{f' ({each.doubt})' if each.doubt else ''}" for each in found], NAMED)
    is_named = "may be named" if all(each.doubt for each in found) else "is named"
    return (
        f"{plugin} stays, as it {is_named} in {files}: a runtime that reads it there and finds no plugin file starts and "
        f"stops no pod. Take {PLUGIN} out of {'that' if len(found) == 1 else 'those'} (Multus recreates its copy when its pod "
        "on this node is restarted), then run install-cni uninstall again"
    )


def names_plugin(content: bytes, embedded: int = EMBEDDED) -> bool:
    """Whether a configuration names the plugin: as any value, or anywhere in the text if it does not parse.

    The name of a network does not count. Whether a runtime would accept the file does not matter: it may be repaired. Up to
    `embedded` further levels of JSON in JSON strings are read.
    """
    if PLUGIN.encode() not in _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), content):
        return False
    try:
        # As pairs: other readers may pick another one of equal keys.
        value = json.loads(content.decode("utf-8", "surrogateescape"), object_pairs_hook=_Object)
    except (ValueError, RecursionError):
        return True
    return any(_is_named(text, embedded) for text in _texts(value))


class _Object(list[tuple[str, Any]]):
    """The members of an object, equal keys included."""


def _texts(value: object) -> Iterator[str]:
    """Iterate over the strings of a value except network names; without recursion, as it may be nested deeply."""
    pending = [value]
    while pending:
        match pending.pop():
            case _Object() as members:
                pending += [inner for key, inner in members if key.casefold() != "name" or not isinstance(inner, str)]
            case list() as items:
                pending += items
            case str() as text:
                yield text


def _is_named(text: str, embedded: int) -> bool:
    if text.rpartition("/")[2] == PLUGIN:  # the plugin's type, or a path of its file
        return True
    if not text.lstrip().startswith(("{", "[")):
        return False
    return embedded == 0 or names_plugin(text.encode("utf-8", "surrogateescape"), embedded - 1)


def _search(folder: Directory, prefix: str, budget: _Budget, depth: int = 0) -> Iterator[Reference]:
    """Search an open directory, `depth` levels below cniConfDir."""
    if not budget.is_new(os.fstat(folder.fd)):
        return
    if depth > DEPTH:
        yield Reference(prefix, f"more than {DEPTH} directories deep: not looked into")
        return
    names = folder.names()
    budget.take(names=len(names))
    for name in names:
        path = prefix + name
        try:
            below = folder.below(name)
        except NotADirectoryError:
            if name.endswith(CONF_SUFFIXES):
                yield from _search_file(folder, name, path, budget)
        except OSError as error:
            if name.endswith(CONF_SUFFIXES) and folder.stat(name):
                link = "a symbolic link to a missing file" if isinstance(error, FileNotFoundError) else ""
                yield Reference(path, link or error.strerror or str(error))
        else:
            with below:
                yield from _search(below, f"{path}/", budget, depth + 1)


def _search_file(folder: Directory, name: str, path: str, budget: _Budget) -> Iterator[Reference]:
    try:
        content = folder.read(name)
    except FileNotFoundError:
        return  # gone since
    except OSError as error:
        yield Reference(path, error.strerror or str(error))
        return
    budget.take(size=len(content))
    if names_plugin(content):
        yield Reference(path)
