"""Reads untrusted YAML and JSON within bounds, like the API server's clients; errors name the line.

With aliases, 500 bytes of YAML can expand to gigabytes, unnoticed until the document is merged or written. So the expanded
size of a document is measured, event by event, before it is constructed. Pure, except for `read_file`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import yaml

from plugin.pod import ManifestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

LARGEST = 64 << 20  # bytes of a file: the pods of a large cluster, as kubectl writes them
DEEPEST = 100  # levels: no Kubernetes object has half as many
MOST_REPEATED = 4 << 20  # characters that aliases may add to the written ones

_CLoader = cast("type[yaml.SafeLoader]", getattr(yaml, "CSafeLoader", yaml.SafeLoader))


class Document(NamedTuple):
    """A document's value, and the YAML node that it was constructed from."""

    value: Any
    node: yaml.Node


def read_file(name: str, largest: int = LARGEST) -> bytes:
    """Read a file, `-` for stdin.

    Raises:
        ManifestError: if it is too large.
        OSError: if it cannot be read.
    """
    if name == "-":
        data = sys.stdin.buffer.read(largest + 1)
    else:
        with Path(name).open("rb") as file:
            data = file.read(largest + 1)
    if len(data) > largest:
        raise ManifestError(f"saw more than {largest >> 20} MiB, expected at most that: split the file")
    return data


def check_file(name: str) -> None:
    """Check that a YAML file is within bounds, for a library that has none.

    Raises:
        ManifestError: with the line, what was seen and what was expected.
        OSError: if it cannot be read.
    """
    for _ in from_yaml(read_file(name)):
        pass


def from_json(data: bytes) -> Any:
    """Read one JSON value.

    Raises:
        ManifestError: with the line, what was seen and what was expected.
    """
    try:
        return json.loads(data, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise ManifestError(f"line {error.lineno}: {error.msg}, expected JSON") from error
    except RecursionError as error:
        raise ManifestError(f"saw JSON nested too deep, expected at most {DEEPEST} levels") from error
    except ValueError as error:
        raise ManifestError(_line_of(error)) from error


def from_yaml(data: bytes | str) -> Iterator[Document]:
    """Yield the documents of a YAML file; JSON is YAML, except for its tabs.

    Raises:
        ManifestError: with the line, what was seen and what was expected.
    """
    try:
        _measure(data)
        loader = _Loader(data)
        try:
            while loader.check_node():
                node = cast("yaml.Node", loader.get_node())
                yield Document(loader.construct_document(node), node)
        finally:
            loader.dispose()
    except ManifestError:
        raise
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ManifestError(f"line {line}: {error.problem}, expected YAML") from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ManifestError(_line_of(error)) from error


def objects(document: object) -> Iterator[object]:
    """Yield a Kubernetes object, or the items of a list, also of nested lists.

    The items of a PodList need no kind: they get that of the list.
    """
    kind = document.get("kind") if isinstance(document, dict) else None
    if (
        not isinstance(document, dict)
        or not isinstance(kind, str)
        or not kind.endswith("List")
        or "items" not in document
    ):
        yield document
        return
    like = {} if kind == "List" else {"apiVersion": document.get("apiVersion"), "kind": kind.removesuffix("List")}
    for item in document["items"] if isinstance(document["items"], list) else ():
        yield from objects(like | item if isinstance(item, dict) and "kind" not in item else item)


def mapping(value: object) -> Mapping[str, Any]:
    """Return a mapping for whatever an untrusted document holds in its place."""
    return value if isinstance(value, dict) else {}


def mappings_in(value: object) -> Iterator[Mapping[str, Any]]:
    """Yield each mapping in a value, itself included, at any depth; without recursion, as it may be nested deeply."""
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            yield each
            pending += each.values()
        elif isinstance(each, list):
            pending += each


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _line_of(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ManifestError(f"saw the key {key!r:.60} twice in an object, expected it once")
        result[key] = value
    return result


class _Loader(_CLoader):  # type: ignore[misc, valid-type]
    """YAML as the API server's clients read it: dates, such as a tag 2019-11-01, and 1:30 are text, as is every key."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        result = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            result[key if isinstance(key, str) else json.dumps(key)] = self.construct_object(value_node, deep=deep)
        return result

    def construct_yaml_int(self, node: yaml.ScalarNode) -> Any:
        return _text_if_sexagesimal(node) or self._checked(super().construct_yaml_int, node)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> Any:
        return _text_if_sexagesimal(node) or self._checked(super().construct_yaml_float, node)

    def construct_yaml_bool(self, node: yaml.ScalarNode) -> Any:
        return self._checked(super().construct_yaml_bool, node)

    def _checked(self, construct: Callable[[yaml.ScalarNode], Any], node: yaml.ScalarNode) -> Any:
        """Construct a scalar; a hand-written tag may have any text."""
        try:
            return construct(node)
        except (LookupError, ValueError) as error:
            problem = f"saw {node.value!r:.60}, which cannot be read as {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


def _text_if_sexagesimal(node: yaml.ScalarNode) -> Any:
    return node.value if ":" in node.value else None


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# Only JSON's values: no reader of the object expects a date, bytes or a set.
_Loader.yaml_constructors = {None: yaml.SafeLoader.yaml_constructors[None]} | {
    f"tag:yaml.org,2002:{kind}": getattr(_Loader, f"construct_yaml_{kind}")
    for kind in ("str", "int", "float", "bool", "null", "seq", "map")
}


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


def _measure(data: bytes | str) -> None:
    """Check that the expanded size of YAML is within bounds.

    Raises:
        ManifestError: if it is not, or a mapping has a duplicate key.
        yaml.YAMLError: if it is not YAML.
    """
    measured = _Measure()
    for event in yaml.parse(data, Loader=_CLoader):
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
