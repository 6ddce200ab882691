"""Files of manifests, YAML or JSON, and the pods in them; errors name the line."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import yaml

from installer.documents.reader import from_json, from_yaml
from installer.pods.pod_specs import Other, PodManifest, pods
from plugin.pod import ManifestError, Pod

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_STEP = re.compile(r"([^.\[\]]+)|\[([0-9]+)\]")


class Found(NamedTuple):
    """A pod as written and as the decision needs it, with the handler of its RuntimeClass where known."""

    written: PodManifest
    pod: Pod
    handler: str = ""


def read(data: bytes, *, is_json: bool) -> Iterator[Found | Other]:
    """Find the pods in a file, and the objects without any.

    YAML may have several documents, and allows no tabs.

    Raises:
        ManifestError: with the line, what was seen and what was expected.
    """
    try:
        if is_json:
            yield from _found(from_json(data), lambda _: 1)
        else:
            for document in from_yaml(data):
                yield from _found(document.value, partial(_line, document.node))
    except RecursionError as error:
        raise ManifestError("saw values nested too deep to be shown") from error


def _found(document: object, line: Callable[[str], int]) -> Iterator[Found | Other]:
    path = ""
    try:
        for each in pods(document):
            if isinstance(each, PodManifest):
                path = each.path and f"{each.path}."
                yield Found(each, Pod.from_manifest(each.manifest))
            else:
                yield each
            path = ""
    except ManifestError as error:
        text = f"{path}{error}"
        raise ManifestError(f"line {line(text)}: {text}") from error


def _line(node: yaml.Node, error: str) -> int:
    """Find the line of an error's path, or of its longest prefix that exists."""
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
