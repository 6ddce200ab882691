"""Conflist surgery: our entry into a CNI network configuration and out again, every other byte as it was (F10 to F12).

Bytes in, bytes out, nothing else. A file is accepted as libcni accepts it, which is how the runtimes read it: keys of a
list exactly, keys of a single plugin without regard to case, and bytes that are no UTF-8 let pass inside strings.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plugin import jsontext

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from plugin.jsontext import Element, Member

PLUGIN_TYPE = "istio-cni"


class InvalidConfigError(ValueError):
    """A file that libcni does not take for a network configuration, or that cannot be changed safely."""


def check_list(content: bytes) -> None:
    """Make sure that a `.conflist` is one that a runtime takes.

    Raises:
        InvalidConfigError: it says what was seen and what was expected.
    """
    _List.parse(content)


def check_conf(content: bytes) -> None:
    """Make sure that a `.conf` or `.json` is a single plugin's configuration that a runtime takes.

    Raises:
        InvalidConfigError: it says what was seen and what was expected.
    """
    _Conf.parse(content)


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
    conflist = _List.parse(content)
    if conflist.is_spliced(entry):
        return content
    edits = conflist.cuts()
    if conflist.others:
        last = conflist.others[-1]
        edits.append((last.end, last.end, "," + _written_like(conflist.text, last, entry)))
    else:
        start = conflist.plugins[0].start
        edits.append((start, start, json.dumps(entry)))
    return _encode(_edited(conflist.text, edits))


def remove(content: bytes) -> bytes:
    """Take every entry of ours out of a list. After `splice` this gives the bytes from before it.

    Raises:
        InvalidConfigError: if `content` is no conflist.
    """
    conflist = _List.parse(content)
    return _encode(_edited(conflist.text, conflist.cuts()))


def is_spliced(content: bytes, entry: Mapping[str, Any]) -> bool:
    """Tell whether our entry is in the list as it should be: once, last and equal (F10).

    Raises:
        InvalidConfigError: if `content` is no conflist.
    """
    return _List.parse(content).is_spliced(entry)


def has_entry(content: bytes) -> bool:
    """Tell whether a list has an entry of ours, right or wrong.

    Raises:
        InvalidConfigError: if `content` is no conflist.
    """
    conflist = _List.parse(content)
    return len(conflist.others) < len(conflist.plugins)


def has_others(content: bytes) -> bool:
    """Tell whether a list has a plugin that is not ours.

    Raises:
        InvalidConfigError: if `content` is no conflist.
    """
    return bool(_List.parse(content).others)


def from_conf(content: bytes, entry: Mapping[str, Any]) -> bytes:
    """Make a list out of a single plugin's configuration, and splice our entry into it (F11).

    The plugin's text stands in the list as it was, blanks around it included: the list alone is enough to `restore` it.

    Raises:
        InvalidConfigError: if `content` is no single plugin's configuration.
    """
    conf = _Conf.parse(content)
    head = f'"cniVersion": {conf.raw_version}, ' if conf.raw_version else ""
    return splice(_encode(f'{{{head}"name": {conf.raw_name}, "plugins": [{conf.text}]}}\n'), entry)


def is_from_conf(content: bytes) -> bool:
    """Tell a list that `from_conf` made, whatever others added to it: its first plugin has the list's name as its own.

    Raises:
        InvalidConfigError: if `content` is no conflist.
    """
    conflist = _List.parse(content)
    if not conflist.others:
        return False
    members = jsontext.members(conflist.text, conflist.others[0].start)
    own = [field.value if field else None for field in (_go_field(members, "name"), _go_field(members, "cniVersion"))]
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
    conflist = _List.parse(remove(content))
    if len(conflist.plugins) > 1 or not conflist.keys <= {"cniVersion", "name", "plugins"}:
        return None
    return _encode(conflist.text[conflist.start + 1 : conflist.end - 1])


@dataclass(frozen=True)
class _List:
    """A conflist; `text[start:end]` is its array of plugins, brackets included."""

    text: str
    keys: frozenset[str]
    name: str
    version: str | None
    start: int
    end: int
    plugins: Sequence[Element]
    others: Sequence[Element]

    @classmethod
    def parse(cls, content: bytes) -> _List:
        """Read a list as libcni does (`NetworkConfFromBytes`)."""
        text = _text_of_object(content)
        found = {each.key: each for each in jsontext.members(text)}  # of equal keys the last one, as in Go
        _require_string(found.get("name"), "name")
        version = found.get("cniVersion")
        if version:
            _require_string(version, "cniVersion", may_be_empty=True)
        array = found.get("plugins")
        if not array or not isinstance(array.value, list) or not array.value:
            raise InvalidConfigError(f"plugins: saw {_seen(array)}, expected an array with at least one plugin")
        plugins = jsontext.elements(text, array.start)
        for index, plugin in enumerate(plugins):
            if not isinstance(plugin.value, dict):
                raise InvalidConfigError(f"plugins[{index}]: saw {_short(plugin.value)}, expected an object")
            _require_string(_type_in_list(text, plugin), f"plugins[{index}].type")
        return cls(
            text=text,
            keys=frozenset(found),
            name=found["name"].value,
            version=version.value if version else None,
            start=array.start,
            end=array.end,
            plugins=plugins,
            others=[each for each in plugins if not _is_ours(text, each)],
        )

    def is_spliced(self, entry: Mapping[str, Any]) -> bool:
        ours = [each for each in self.plugins if each not in self.others]
        return ours == [self.plugins[-1]] and _canonical(ours[0].value) == _canonical(entry)

    def cuts(self) -> list[tuple[int, int, str]]:
        """The edits that take our entries out, each with one comma, and leave others' blanks alone."""
        if not self.others:
            return [(self.plugins[0].start, self.plugins[-1].end, "")]
        cuts = []
        for index, plugin in enumerate(self.plugins):
            if plugin in self.others:
                continue
            if plugin.start < self.others[0].start:
                cuts.append((plugin.start, self.plugins[index + 1].start, ""))
            else:
                comma = jsontext.skip_space(self.text, self.plugins[index - 1].end)
                cuts.append((comma, plugin.end, ""))
        return cuts


@dataclass(frozen=True)
class _Conf:
    """A single plugin's configuration; `raw_*` are its values as written."""

    text: str
    name: str
    raw_name: str
    version: str | None
    raw_version: str | None

    @classmethod
    def parse(cls, content: bytes) -> _Conf:
        """Read a plugin's configuration as libcni does (`ConfFromBytes`), which needs a name of its own here."""
        text = _text_of_object(content)
        members = jsontext.members(text)
        if any(each.key == "plugins" for each in members) and not _go_field(members, "type"):
            raise InvalidConfigError("saw a list of plugins, expected a single one: a list's file is named *.conflist")
        kind = _require_string(_go_field(members, "type"), "type")
        if kind.value == PLUGIN_TYPE:
            raise InvalidConfigError(f"type: saw {PLUGIN_TYPE} by itself, expected the plugin that sets up the network")
        name = _require_string(_go_field(members, "name"), "name")
        version = _go_field(members, "cniVersion")
        if version:
            _require_string(version, "cniVersion", may_be_empty=True)
        return cls(
            text=text,
            name=name.value,
            raw_name=text[name.start : name.end],
            version=version.value if version else None,
            raw_version=text[version.start : version.end] if version else None,
        )


def _text_of_object(content: bytes) -> str:
    # Go takes bytes that are no UTF-8 inside strings, and so does the runtime: they have to come out as they went in.
    text = content.decode("utf-8", "surrogateescape")
    if not text.strip(jsontext.SPACE):
        raise InvalidConfigError("saw an empty file, expected a JSON object")
    try:
        value = jsontext.loads(text)
    except jsontext.JsonError as error:
        raise InvalidConfigError(str(error)) from error
    if not isinstance(value, dict):
        raise InvalidConfigError(f"saw {_short(value)}, expected a JSON object")
    return text


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _go_field(members: Sequence[Member], name: str) -> Member | None:
    """The member that Go puts into a struct's string: the last, in whatever case, unless it stumbles over another."""
    found = [each for each in members if each.key.casefold() == name.casefold() and each.value is not None]
    wrong = [each for each in found if not isinstance(each.value, str)]
    return [None, *found, *wrong][-1]


def _type_in_list(text: str, plugin: Element) -> Member | None:
    # libcni writes each plugin of a list anew, keys sorted, before it reads it into the struct.
    return _go_field(sorted(jsontext.members(text, plugin.start), key=lambda each: each.key), "type")


def _is_ours(text: str, plugin: Element) -> bool:
    kind = _type_in_list(text, plugin)
    return kind is not None and kind.value == PLUGIN_TYPE


def _require_string(member: Member | None, key: str, *, may_be_empty: bool = False) -> Member:
    if member is None or not isinstance(member.value, str) or not (member.value or may_be_empty):
        expected = "a string" if may_be_empty else "a string that is not empty"
        raise InvalidConfigError(f"{key}: saw {_seen(member)}, expected {expected}")
    return member


def _seen(member: Member | None) -> str:
    return _short(member.value) if member else "none"


def _short(value: object) -> str:
    written = json.dumps(value)
    return written if len(written) <= 60 else written[:60] + "…"


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True)  # unlike ==, tells true from 1 and 1 from 1.0


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
