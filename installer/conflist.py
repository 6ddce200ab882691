"""Conflist surgery: our entry into a CNI network configuration and out again, every other byte as it was (F10 to F12).

Bytes in, bytes out, nothing else. `installer.netconf` says what is accepted.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from installer.netconf import PLUGIN_TYPE, NetworkConf, NetworkList, encoded, go_field
from plugin import jsontext

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from plugin.jsontext import Element


def check_list(content: bytes) -> None:
    """Make sure that a `.conflist` is one that a runtime takes.

    Raises:
        InvalidConfigError: it says what was seen and what was expected.
    """
    NetworkList.parse(content)


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
    conflist = NetworkList.parse(content)
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
    conflist = NetworkList.parse(content)
    return encoded(_edited(conflist.text, conflist.cuts()))


def is_spliced(content: bytes, entry: Mapping[str, Any]) -> bool:
    """Tell whether our entry is in the list as it should be: once, last and equal (F10).

    Raises:
        InvalidConfigError: if `content` is no conflist.
    """
    return NetworkList.parse(content).is_spliced(entry)


def has_entry(content: bytes) -> bool:
    """Tell whether a list has an entry of ours, right or wrong.

    Raises:
        InvalidConfigError: if `content` is no conflist.
    """
    conflist = NetworkList.parse(content)
    return len(conflist.others) < len(conflist.plugins)


def has_others(content: bytes) -> bool:
    """Tell whether a list has a plugin that is not ours.

    Raises:
        InvalidConfigError: if `content` is no conflist.
    """
    return bool(NetworkList.parse(content).others)


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


def from_conf(content: bytes, entry: Mapping[str, Any]) -> bytes:
    """Make a list out of a single plugin's configuration, and splice our entry into it (F11).

    The plugin's text stands in the list as it was, blanks around it included: the list alone is enough to `restore` it.

    Raises:
        InvalidConfigError: if `content` is no single plugin's configuration.
    """
    conf = NetworkConf.parse(content)
    head = f'"cniVersion": {conf.raw_version}, ' if conf.raw_version else ""
    return splice(encoded(f'{{{head}"name": {conf.raw_name}, "plugins": [{conf.text}]}}\n'), entry)


def is_from_conf(content: bytes) -> bool:
    """Tell a list that `from_conf` made, whatever others added to it: its first plugin has the list's name as its own.

    Raises:
        InvalidConfigError: if `content` is no conflist.
    """
    conflist = NetworkList.parse(content)
    if not conflist.others:
        return False
    members = jsontext.members(conflist.text, conflist.others[0].start)
    own = [field.value if field else None for field in (go_field(members, "name"), go_field(members, "cniVersion"))]
    return own == [conflist.name, conflist.version]


def restore(content: bytes) -> bytes | None:
    """Give the original of a list that `from_conf` made, byte for byte, whether our entry is still in it or not.

    Returns:
        The single plugin's configuration; None where the list is none of ours, or others have added to it since.

    Raises:
        InvalidConfigError: if `content` is no conflist.
    """
    if not is_from_conf(content):
        return None
    conflist = NetworkList.parse(remove(content))
    if len(conflist.plugins) > 1 or not conflist.keys <= {"cniVersion", "name", "plugins"}:
        return None
    return encoded(conflist.text[conflist.start + 1 : conflist.end - 1])


def _written_like(text: str, model: Element, entry: Mapping[str, Any]) -> str:
    """Write our entry, and the blanks before it, as the plugin `model` is written."""
    before = text[: model.start]
    gap = before[len(before.rstrip(jsontext.SPACE)) :]
    spaced = text[jsontext.members(text, model.start)[0].start - 1] in jsontext.SPACE
    gap = gap or (" " if spaced else "")
    inside = text[model.start + 1 : jsontext.skip_space(text, model.start + 1)]
    colon = ": " if spaced else ":"
    if "\n" not in inside:
        return gap + json.dumps(entry, separators=(", " if spaced else ",", colon))
    last_line = text.rfind("\n", 0, model.end) + 1
    outer = text[last_line : jsontext.skip_space(text, last_line)]
    step = inside.rpartition("\n")[2].removeprefix(outer) or "  "
    newline = "\r\n" if "\r\n" in inside else "\n"
    return gap + json.dumps(entry, indent=step, separators=(",", colon)).replace("\n", newline + outer)


def _edited(text: str, edits: Sequence[tuple[int, int, str]]) -> str:
    """Replace each `text[start:end]`, the later ones first so that the others' positions hold."""
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text
