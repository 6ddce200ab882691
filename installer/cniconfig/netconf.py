"""Network configurations as libcni, and so each runtime, reads them.

A list's keys are case-sensitive, a single plugin's are not. Strings may contain bytes that are not UTF-8.
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
MARKER = "istioCNI"  # the key of a list of our own, see `conflist.own_list`; libcni ignores unknown keys


class InvalidConfigError(ValueError):
    """A file that libcni rejects as a network configuration, or that cannot be changed safely."""


@dataclass(frozen=True)
class NetworkList:
    """A conflist; `text[start:end]` is its array of plugins, brackets included, and `marker` its value under `MARKER`."""

    text: str
    name: str
    version: str | None
    start: int
    end: int
    plugins: Sequence[Element]
    others: Sequence[Element]
    marker: Any

    @classmethod
    def parse(cls, content: bytes) -> NetworkList:
        """Read a list as libcni does (`NetworkConfFromBytes`)."""
        text = _text_of_object(content)
        found = {each.key: each for each in jsontext.members(text)}  # the last of duplicate keys wins, as in Go
        _require_string(found.get("name"), "name")
        version = found.get("cniVersion")
        if version:
            _require_string(version, "cniVersion", may_be_empty=True)
        array = found.get("plugins")
        if not array or not isinstance(array.value, list) or not array.value:
            raise InvalidConfigError(f"plugins: saw {_describe(array)}, expected an array with at least one plugin")
        plugins = jsontext.elements(text, array.start)
        for index, plugin in enumerate(plugins):
            if not isinstance(plugin.value, dict):
                raise InvalidConfigError(f"plugins[{index}]: saw {_short(plugin.value)}, expected an object")
            _require_string(_type_in_list(text, plugin), f"plugins[{index}].type")
        return cls(
            text=text,
            name=found["name"].value,
            version=version.value if version else None,
            start=array.start,
            end=array.end,
            plugins=plugins,
            others=[each for each in plugins if not _is_ours(text, each)],
            marker=found[MARKER].value if MARKER in found else None,
        )

    def is_spliced(self, entry: Mapping[str, Any]) -> bool:
        """Return whether our entry is in it once, last and equal (F10)."""
        ours = [each for each in self.plugins if each not in self.others]
        return ours == [self.plugins[-1]] and canonical(ours[0].value) == canonical(entry)

    def cuts(self) -> list[tuple[int, int, str]]:
        """The edits that remove our entries, each with one comma, and keep all other whitespace."""
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
class NetworkConf:
    """A single plugin's configuration; `raw_*` are its values as written, None if absent."""

    text: str
    raw_name: str | None
    raw_version: str | None

    @classmethod
    def parse(cls, content: bytes) -> NetworkConf:
        """Read a plugin's configuration as libcni does (`ConfFromBytes`): only its type is required."""
        text = _text_of_object(content)
        members = jsontext.members(text)
        if any(each.key == "plugins" for each in members) and not go_field(members, "type"):
            raise InvalidConfigError("saw a list of plugins, expected a single one: a list's file is named *.conflist")
        kind = _require_string(go_field(members, "type"), "type")
        if kind.value == PLUGIN_TYPE:
            raise InvalidConfigError(f"type: saw {PLUGIN_TYPE} by itself, expected the plugin that sets up the network")
        name, version = go_field(members, "name"), go_field(members, "cniVersion")
        for key, member in (("name", name), ("cniVersion", version)):
            if member:
                _require_string(member, key, may_be_empty=True)
        return cls(
            text=text,
            raw_name=text[name.start : name.end] if name and name.value else None,
            raw_version=text[version.start : version.end] if version else None,
        )


def _text_of_object(content: bytes) -> str:
    # Go, and so the runtime, accepts bytes that are not UTF-8 inside strings: they must come out unchanged.
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


def encoded(text: str) -> bytes:
    """Encode text as the bytes that it was decoded from."""
    return text.encode("utf-8", "surrogateescape")


def go_field(members: Sequence[Member], name: str) -> Member | None:
    """Return the member that Go decodes into a struct's string: the last, in any case; another of a wrong type is an error."""
    found = [each for each in members if each.key.casefold() == name.casefold() and each.value is not None]
    wrong = [each for each in found if not isinstance(each.value, str)]
    return [None, *found, *wrong][-1]


def _type_in_list(text: str, plugin: Element) -> Member | None:
    # libcni marshals each plugin of a list again, keys sorted, before it decodes it into the struct.
    return go_field(sorted(jsontext.members(text, plugin.start), key=lambda each: each.key), "type")


def _is_ours(text: str, plugin: Element) -> bool:
    kind = _type_in_list(text, plugin)
    return kind is not None and kind.value == PLUGIN_TYPE


def _require_string(member: Member | None, key: str, *, may_be_empty: bool = False) -> Member:
    if member is None or not isinstance(member.value, str) or not (member.value or may_be_empty):
        expected = "a string" if may_be_empty else "a string that is not empty"
        raise InvalidConfigError(f"{key}: saw {_describe(member)}, expected {expected}")
    return member


def _describe(member: Member | None) -> str:
    return _short(member.value) if member else "none"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:60] + "…"


def canonical(value: object) -> str:
    """Write a value canonically: equal values have equal texts."""
    return json.dumps(value, sort_keys=True)  # unlike ==, distinguishes true from 1 and 1 from 1.0
