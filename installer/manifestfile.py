"""Files of manifests, YAML or JSON, and the pods in them; errors name the line."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

import yaml

from installer.podspecs import Other, PodManifest, pods
from plugin.pod import ManifestError, Pod

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_STEP = re.compile(r"([^.\[\]]+)|\[([0-9]+)\]")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Found(NamedTuple):
    """A pod in a file: as it was written, and as the decision needs it."""

    written: PodManifest
    pod: Pod


def read(data: bytes, *, is_json: bool) -> Iterator[Found | Other]:
    """Find the pods in a file, and what holds none.

    Args:
        data: what the file holds.
        is_json: whether it is JSON; YAML otherwise, of one document or several (it takes no tabs).

    Raises:
        ManifestError: with the line, what was seen and what was expected.
    """
    try:
        yield from _json(data) if is_json else _yaml(data)
    except ManifestError:
        raise
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ManifestError(f"line {line}: {error.problem}, expected YAML") from error
    except json.JSONDecodeError as error:
        raise ManifestError(f"line {error.lineno}: {error.msg}, expected JSON") from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ManifestError(" ".join(str(error).split()) or type(error).__name__) from error


def _json(data: bytes) -> Iterator[Found | Other]:
    yield from _found(json.loads(data), lambda _: 1)


def _yaml(data: bytes) -> Iterator[Found | Other]:
    loader = _Loader(data)
    try:
        while loader.check_node():
            node = cast("yaml.Node", loader.get_node())
            yield from _found(loader.construct_document(node), partial(_line, node))
    finally:
        loader.dispose()


def _found(document: object, line: Callable[[str], int]) -> Iterator[Found | Other]:
    path = ""
    try:
        for each in pods(document):
            if isinstance(each, PodManifest):
                path = each.path
                yield Found(each, Pod.from_manifest(each.manifest))
            else:
                yield each
            path = ""
    except ManifestError as error:
        text = f"{path}{error}"
        raise ManifestError(f"line {line(text)}: {text}") from error


def _line(node: yaml.Node, error: str) -> int:
    """Find the line that an error's path leads to, as far as it leads."""
    for key, index in _STEP.findall(error.partition(":")[0]):
        following: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            following = next((value for name, value in node.value if name.value == key), None)
        elif isinstance(node, yaml.SequenceNode) and index and int(index) < len(node.value):
            following = node.value[int(index)]
        if following is None:
            break
        node = following
    return int(node.start_mark.line) + 1
