"""Conflist surgery: adds our entry to a CNI network configuration and removes it, keeping every other byte (F10 to F12).

Bytes in, bytes out, no I/O. `installer.cniconfig.netconf` defines what is accepted; whatever reads a list
raises InvalidConfigError for anything else.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from installer.cniconfig.netconf import MARKER, PLUGIN_TYPE, NetworkConf, NetworkList, encoded
from installer.documents.objects import mappings_in
from plugin import jsontext

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from plugin.jsontext import Element


read_list = lru_cache(maxsize=8)(NetworkList.parse)  # one pass over a directory parses each file several times


def splice(content: bytes, entry: Mapping[str, Any]) -> bytes:
    """Add our entry to a list: once, last, equal to `entry`, formatted like the plugin before it.

    Args:
        content: a conflist; duplicate, changed or misplaced entries of ours are removed.
        entry: our entry, of type `istio-cni`; its keys are written in their order.

    Returns:
        The new bytes; the same bytes if the entry is already correct.

    Raises:
        ValueError: if the type of `entry` is not ours.
    """
    if entry.get("type") != PLUGIN_TYPE:
        raise ValueError(f"entry: saw type {entry.get('type')!r}, expected {PLUGIN_TYPE!r}")
    conflist = read_list(content)
    if conflist.is_spliced(entry):
        return content
    edits = conflist.cuts()
    if conflist.others:
        last = conflist.others[-1]
        edits.append((last.end, last.end, "," + _format_like(conflist.text, last, entry)))
    else:
        start = conflist.plugins[0].start
        edits.append((start, start, json.dumps(entry)))
    return encoded(_apply_edits(conflist.text, edits))


def remove(content: bytes) -> bytes:
    """Remove every entry of ours from a list. After `splice` this restores the original bytes."""
    conflist = read_list(content)
    return encoded(_apply_edits(conflist.text, conflist.cuts()))


def is_spliced(content: bytes, entry: Mapping[str, Any]) -> bool:
    """Return whether our entry is correct: in the list once, last and equal (F10)."""
    return read_list(content).is_spliced(entry)


def has_entry(content: bytes) -> bool:
    """Return whether a list has an entry of ours, correct or not."""
    conflist = read_list(content)
    return len(conflist.others) < len(conflist.plugins)


def standalone(entry: Mapping[str, Any]) -> bytes:
    """Make a configuration of our plugin alone, for Multus, which runs it beside the others."""
    return encoded(json.dumps({**entry, "cniVersion": "0.3.1", "name": PLUGIN_TYPE}, sort_keys=True) + "\n")


def is_standalone(content: bytes) -> bool:
    """Return whether `standalone` made a configuration, with any settings."""
    try:
        value = jsontext.loads(content.decode("utf-8", "surrogateescape"))
    except jsontext.JsonError:
        return False
    return isinstance(value, dict) and value.get("type") == PLUGIN_TYPE and "agentSocket" in value


def own_list(content: bytes, source: str, name: str, entry: Mapping[str, Any]) -> bytes:
    """Make a list of our own: another program's configuration, followed by our plugin (D11).

    A marker, which libcni ignores, names the file and its source: under another name the same content is another program's
    copy. `content` is that of the file `source`: a list, or a single plugin's configuration. `name` is that of the list.
    """
    text = read_list(content).text if source.endswith(".conflist") else _as_list(content, source)
    start = text.index("{") + 1
    marker = json.dumps({MARKER: {"file": name, "source": source}})[1:-1]
    return splice(encoded(f"{text[:start]}{marker}, {text[start:]}"), entry)


def source_of(content: bytes, name: str) -> str | None:
    """Return the source file of a list of our own; None if the list is another program's."""
    marker = read_list(content).marker
    if not isinstance(marker, dict) or marker.get("file") != name:
        return None
    source = marker.get("source")
    return source if isinstance(source, str) else None


def delegates_to_us(content: bytes) -> bool:
    """Return whether a configuration has our entry inside a plugin, as in the `delegates` that Multus copies (F34)."""
    value = jsontext.loads(content.decode("utf-8", "surrogateescape"))
    listed = value.get("plugins")
    # The key means nothing in a single plugin's configuration, and may have any value there.
    plugins = listed if isinstance(listed, list) else [value]
    inner = [each for plugin in plugins if isinstance(plugin, dict) for each in plugin.values()]
    return any(each.get("type") == PLUGIN_TYPE for each in mappings_in(inner))


def _as_list(content: bytes, file: str) -> str:
    """Write a single plugin's configuration as the list that libcni makes of it; its name defaults to the file's (CRI-O)."""
    conf = NetworkConf.parse(content)
    head = f'"cniVersion": {conf.raw_version}, ' if conf.raw_version else ""
    return f'{{{head}"name": {conf.raw_name or json.dumps(file)}, "plugins": [{conf.text}]}}\n'


class _Style(NamedTuple):
    """The formatting of a plugin in a list.

    Attributes:
        gap: the whitespace before it.
        colon: between key and value.
        comma: between two members.
        indent: one level of indentation; empty: all members are on one line.
        line: the start of each line but the first: the line break and the plugin's own indentation.
    """

    gap: str
    colon: str
    comma: str
    indent: str = ""
    line: str = ""


def _format_like(text: str, model: Element, entry: Mapping[str, Any]) -> str:
    """Write our entry, and the whitespace before it, formatted like the plugin `model`."""
    style = _style_of(text, model)
    entry_text = json.dumps(entry, indent=style.indent or None, separators=(style.comma, style.colon))
    return style.gap + entry_text.replace("\n", style.line)


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


def _apply_edits(text: str, edits: Sequence[tuple[int, int, str]]) -> str:
    """Replace each `text[start:end]`, from the last to the first, so that earlier positions stay valid."""
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text
