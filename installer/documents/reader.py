"""Reads untrusted YAML and JSON within bounds, like the API server's clients.

What is not, or too large, is a ManifestError, with the line, what was seen and what was expected. Pure, except for `read_file`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import yaml

from installer.documents.depth import is_deeper
from installer.documents.yaml_size import DEEPEST, LOADER, check_size
from plugin.pod import ManifestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LARGEST = 64 << 20  # bytes of a file: the pods of a large cluster, as kubectl writes them


class Document(NamedTuple):
    """A document's value, and the YAML node that it was constructed from."""

    value: Any
    node: yaml.Node


def read_file(name: str, largest: int = LARGEST) -> bytes:
    """Read a file, `-` for stdin; raises OSError if that fails."""
    if name == "-":
        data = sys.stdin.buffer.read(largest + 1)
    else:
        with Path(name).open("rb") as file:
            data = file.read(largest + 1)
    if len(data) > largest:
        raise ManifestError(f"saw more than {largest >> 20} MiB, expected at most that: split the file")
    return data


def check_file(name: str) -> None:
    """Check that a YAML file is within bounds, for a library that has none; raises OSError as well."""
    for _ in from_yaml(read_file(name)):
        pass


def from_json(data: bytes) -> Any:
    """Read one JSON value."""
    too_deep = f"saw JSON nested too deep, expected at most {DEEPEST} levels"
    try:
        value = json.loads(data, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise ManifestError(f"line {error.lineno}: {error.msg}, expected JSON") from error
    except RecursionError as error:
        raise ManifestError(too_deep) from error
    except ValueError as error:
        raise ManifestError(_line_of(error)) from error
    if is_deeper(value, DEEPEST):
        raise ManifestError(too_deep)
    return value


def from_yaml(data: bytes | str) -> Iterator[Document]:
    """Yield the documents of a YAML file; JSON is YAML, except for its tabs."""
    try:
        check_size(data)
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


def _line_of(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ManifestError(f"saw the key {key!r:.60} twice in an object, expected it once")
        result[key] = value
    return result


class _Loader(LOADER):  # type: ignore[misc, valid-type]
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
