"""Conflist surgery: our entry into a CNI network configuration and out again, every other byte as it was (F10 to F12).

Bytes in, bytes out, nothing else. `installer.cniconfig.netconf` says what is accepted.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from installer.cniconfig.netconf import MARKER, PLUGIN_TYPE, InvalidConfigError, NetworkConf, NetworkList, encoded
from plugin import jsontext

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from plugin.jsontext import Element


_read = lru_cache(maxsize=8)(NetworkList.parse)  # one look at a directory asks several things of each file


def check_list(content: bytes) -> None:
    """Make sure that a `.conflist` is one that a runtime takes.

    Raises:
        InvalidConfigError: it says what was seen and what was expected.
    """
    _read(content)


def check_conf(content: bytes) -> None:
    """Make sure that a `.conf` or `.json` is a single plugin's configuration that a runtime takes.

    Raises:
        InvalidConfigError: it says what was seen and what was expected.
    """
    NetworkConf.parse(content)


def splice(content: bytes, entry: Mapping[str, Any]) -> bytes:
    """Put our entry into a list: once, last, equal to `entry`, in the style of the plugin before it.

    Args:
        content: a conflist; entries of ours that are double, changed or not last are taken out of it.
        entry: our entry, of type `istio-cni`; its keys are written in this order.

    Returns:
        The new bytes, or the same where the entry is already as it should be.

    Raises:
        InvalidConfigError: if `content` is no conflist.
        ValueError: if `entry` is not of our type.
    """
    if entry.get("type") != PLUGIN_TYPE:
        raise ValueError(f"entry: saw type {entry.get('type')!r}, expected {PLUGIN_TYPE!r}")
    conflist = _read(content)
    if conflist.is_spliced(entry):
        return content
    edits = conflist.cuts()
    if conflist.others:
        last = conflist.others[-1]
        edits.append((last.end, last.end, "," + _written_like(conflist.text, last, entry)))
    else:
        start = conflist.plugins[0].start
        edits.append((start, start, json.dumps(entry)))
    return encoded(_edited(conflist.text, edits))


def remove(content: bytes) -> bytes:
    """Take every entry of ours out of a list. After `splice` this gives the bytes from before it.

    Raises:
        InvalidConfigError: if `content` is no conflist.
    """
    conflist = _read(content)
    return encoded(_edited(conflist.text, conflist.cuts()))


def is_spliced(content: bytes, entry: Mapping[str, Any]) -> bool:
    """Tell whether our entry is in the list as it should be: once, last and equal (F10).

    Raises:
        InvalidConfigError: if `content` is no conflist.
    """
    return _read(content).is_spliced(entry)


def has_entry(content: bytes) -> bool:
    """Tell whether a list has an entry of ours, right or wrong.

    Raises:
        InvalidConfigError: if `content` is no conflist.
    """
    conflist = _read(content)
    return len(conflist.others) < len(conflist.plugins)


def has_others(content: bytes) -> bool:
    """Tell whether a list has a plugin that is not ours.

    Raises:
        InvalidConfigError: if `content` is no conflist.
    """
    return bool(_read(content).others)


def standalone(entry: Mapping[str, Any]) -> bytes:
    """Make a configuration of our plugin by itself, for a Multus that runs it beside the others."""
    return encoded(json.dumps({**entry, "cniVersion": "0.3.1", "name": PLUGIN_TYPE}, sort_keys=True) + "\n")


def is_standalone(content: bytes) -> bool:
    """Tell whether a configuration is one that `standalone` has made, with whatever settings."""
    try:
        value = jsontext.loads(content.decode("utf-8", "surrogateescape"))
    except jsontext.JsonError:
        return False
    return isinstance(value, dict) and value.get("type") == PLUGIN_TYPE and "agentSocket" in value


def own_list(content: bytes, source: str, name: str, entry: Mapping[str, Any]) -> bytes:
    """Make a list of our own that does what a configuration of others does, and runs our plugin after it (D11).

    A marker, which libcni reads past, says which file it is and from which it was made: under another name the same content
    is somebody's copy, and not ours.

    Args:
        content: of the file from which it is made, a list or a single plugin's configuration.
        source: that file's name.
        name: the name of the list.
        entry: our entry.

    Raises:
        InvalidConfigError: if `content` is no configuration.
    """
    text = _read(content).text if source.endswith(".conflist") else _as_list(content, source)
    start = text.index("{") + 1
    marker = json.dumps({MARKER: {"file": name, "source": source}})[1:-1]
    return splice(encoded(f"{text[:start]}{marker}, {text[start:]}"), entry)


def source_of(content: bytes, name: str) -> str | None:
    """Tell from which file a list of our own was made; None if it is somebody else's.

    Raises:
        InvalidConfigError: if `content` is no conflist.
    """
    marker = _read(content).marker
    if not isinstance(marker, dict) or marker.get("file") != name:
        return None
    source = marker.get("source")
    return source if isinstance(source, str) else None


def converted_from(content: bytes) -> bytes | None:
    """Give what `NN-x.conf` held before an agent of an earlier build made the list `NN-x.conf.conflist` of it.

    Returns:
        None where it is not such a list, byte for byte, with our entry in it.

    Raises:
        InvalidConfigError: if `content` is no conflist.
    """
    if not has_entry(content):
        return None
    without = remove(content)
    conflist = _read(without)
    original = encoded(conflist.text[conflist.start + 1 : conflist.end - 1])
    try:
        conf = NetworkConf.parse(original)
    except InvalidConfigError:
        return None
    return original if conf.raw_name and encoded(_as_list(original, "")) == without else None


def delegates_to_us(content: bytes) -> bool:
    """Tell whether a configuration has our entry inside of a plugin, as in Multus' `delegates` that were copied (F34)."""
    value = jsontext.loads(content.decode("utf-8", "surrogateescape"))
    plugins = value.get("plugins", [value])
    left = [inner for plugin in plugins for inner in plugin.values()]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            if each.get("type") == PLUGIN_TYPE:
                return True
            left += each.values()
        elif isinstance(each, list):
            left += each
    return False


def _as_list(content: bytes, file: str) -> str:
    """Write a single plugin's configuration as the list that libcni makes of it; without a name it has the file's (CRI-O)."""
    conf = NetworkConf.parse(content)
    head = f'"cniVersion": {conf.raw_version}, ' if conf.raw_version else ""
    return f'{{{head}"name": {conf.raw_name or json.dumps(file)}, "plugins": [{conf.text}]}}\n'


class _Style(NamedTuple):
    """How a plugin of a list is written.

    Attributes:
        gap: the blanks before it.
        colon: between key and value.
        comma: between two members.
        indent: one level; empty: all members are on one line.
        line: begins each line but the first: the line break, and the plugin's own indentation.
    """

    gap: str
    colon: str
    comma: str
    indent: str = ""
    line: str = ""


def _written_like(text: str, model: Element, entry: Mapping[str, Any]) -> str:
    """Write our entry, and the blanks before it, as the plugin `model` is written."""
    style = _style_of(text, model)
    written = json.dumps(entry, indent=style.indent or None, separators=(style.comma, style.colon))
    return style.gap + written.replace("\n", style.line)


def _style_of(text: str, model: Element) -> _Style:
    before = text[: model.start]
    gap = before[len(before.rstrip(jsontext.SPACE)) :]
    blank = " " if text[jsontext.members(text, model.start)[0].start - 1] in jsontext.SPACE else ""
    inside = text[model.start + 1 : jsontext.skip_space(text, model.start + 1)]
    if "\n" not in inside:
        return _Style(gap or blank, f":{blank}", f",{blank}")
    last_line = text.rfind("\n", 0, model.end) + 1
    margin = text[last_line : jsontext.skip_space(text, last_line)]
    indent = inside.rpartition("\n")[2].removeprefix(margin) or "  "
    return _Style(gap or blank, f":{blank}", ",", indent, ("\r\n" if "\r\n" in inside else "\n") + margin)


def _edited(text: str, edits: Sequence[tuple[int, int, str]]) -> str:
    """Replace each `text[start:end]`, the later ones first so that the others' positions hold."""
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text
