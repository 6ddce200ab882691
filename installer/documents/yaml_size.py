"""Bounds YAML by its expanded size, before it is constructed. Pure.

With aliases, 500 bytes of YAML can expand to gigabytes, unnoticed until the document is merged or written. So the expanded
size of a document is measured, event by event.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import yaml

from plugin.pod import ManifestError

DEEPEST = 100  # levels: no Kubernetes object has half as many
MOST_REPEATED = 4 << 20  # characters that aliases may add to the written ones
LOADER = cast("type[yaml.SafeLoader]", getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def check_size(data: bytes | str) -> None:
    """Check that the expanded size of YAML is within bounds.

    Raises:
        ManifestError: if it is not, or a mapping has a duplicate key.
        yaml.YAMLError: if it is not YAML.
    """
    measured = _Measure()
    for event in yaml.parse(data, Loader=LOADER):
        match event:
            case yaml.DocumentStartEvent():
                measured.known = {}
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                is_mapping = isinstance(event, yaml.MappingStartEvent)
                measured.open.append(_Open(event.anchor, {} if is_mapping else None))
                if len(measured.open) > DEEPEST:
                    line = _line(event)
                    raise ManifestError(f"line {line}: saw values nested too deep, expected at most {DEEPEST} levels")
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                measured.end(event)
            case yaml.ScalarEvent():
                size = len(event.value) + 1
                if event.anchor:
                    measured.known[event.anchor] = size, 1
                measured.add(event, size, 1)
            case yaml.AliasEvent():
                measured.alias(event)


@dataclass(slots=True)
class _Open:
    """An open mapping or sequence: its expanded size so far, in characters and levels, and its keys."""

    anchor: str | None
    keys: dict[str, int] | None  # of a mapping: the line of each key
    size: int = 1
    depth: int = 1
    items: int = 0


@dataclass(slots=True)
class _Measure:
    """The expanded size of the documents."""

    open: list[_Open] = field(default_factory=list)
    known: dict[str, tuple[int, int]] = field(default_factory=dict)  # size and depth of each anchor's value
    repeated: int = 0

    def add(self, event: yaml.Event, size: int, depth: int) -> None:
        """Add a complete value to the innermost open one."""
        if not self.open:
            return
        inside, line = self.open[-1], _line(event)
        is_key = inside.keys is not None and inside.items % 2 == 0
        if is_key and isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            raise ManifestError(f"line {line}: saw a list or mapping as a key, expected text")
        if inside.keys is not None and is_key and isinstance(event, yaml.ScalarEvent):
            if event.value in inside.keys:
                where = f"line {inside.keys[event.value]}"
                raise ManifestError(f"line {line}: saw the key {event.value!r:.60} again, expected it once ({where})")
            inside.keys[event.value] = line
        inside.items += 1
        inside.size += size
        inside.depth = max(inside.depth, depth + 1)
        if len(self.open) + depth > DEEPEST:
            raise ManifestError(f"line {line}: saw values nested too deep, expected at most {DEEPEST} levels")

    def end(self, event: yaml.Event) -> None:
        """Close the innermost open value."""
        ended = self.open.pop()
        if ended.anchor:
            self.known[ended.anchor] = ended.size, ended.depth
        self.add(event, ended.size, ended.depth)

    def alias(self, event: yaml.AliasEvent) -> None:
        """Add the value of an alias; the parser reports an unknown one."""
        line = _line(event)
        if any(each.anchor == event.anchor for each in self.open):
            raise ManifestError(
                f"line {line}: saw *{event.anchor} inside the value that it names, expected a finite value"
            )
        size, depth = self.known.get(event.anchor or "", (1, 1))
        self.repeated += size
        if self.repeated > MOST_REPEATED:
            most = f"at most {MOST_REPEATED >> 20} MiB: write the values out"
            raise ManifestError(f"line {line}: saw aliases (*{event.anchor}) that stand for more, expected {most}")
        self.add(event, size, depth)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1
