"""Parses and merges IstioControlPlanes of files. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from installer.config.control_plane import GROUP, KIND, VERSION
from installer.documents.objects import objects_in
from installer.documents.reader import from_yaml
from plugin.pod import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

API_VERSION = f"{GROUP}/{VERSION}"
NAME = "istio-cni"  # the default name of a resource, such as that of the 2019 guide
KEPT = ("labels", "annotations")  # of a resource's metadata besides its name: the rest is the API server's
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

_PLAIN = re.compile(r"(?![yYnN]\Z)[A-Za-z/_*][^\x00-\x1f\x7f-\xa0\u2028\u2029\ufeff]*")


class _Dumper(yaml.SafeDumper):
    """Writes YAML that other parsers read alike: 1e3 and y, which are text to PyYAML alone, are quoted."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if _PLAIN.fullmatch(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def dump(document: object) -> str:
    """Write a document as YAML, keys in their order."""
    text = _dumped(document, allow_unicode=True)
    # If any character is invisible, such as one that reverses text, all but ASCII is written as escapes.
    return text if text.replace("\n", "").isprintable() else _dumped(document, allow_unicode=False)


def _dumped(document: object, *, allow_unicode: bool) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=allow_unicode, width=4096)


def read_objects(data: bytes | str) -> list[Mapping[str, Any]]:
    """Parse the objects of a file, YAML or JSON; the items of a List separately.

    Raises:
        ManifestError: with the line, what was seen and what was expected.
    """
    found: list[Mapping[str, Any]] = []
    for document in from_yaml(data):
        for each in objects_in(document.value) if document.value is not None else ():
            if not isinstance(each, dict):
                raise ManifestError(f"saw {each!r:.80}, expected an object of Kubernetes")
            found.append(each)
    return found


def control_plane(found: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """Find the one IstioControlPlane among objects.

    Returns:
        Its user-written part, {metadata, spec}, without what the API server adds; and the names of the other objects.

    Raises:
        ManifestError: if there is none, more than one, or one of another version.
    """
    own = [each for each in found if each.get("kind") == KIND]
    others = [describe(each) for each in found if each.get("kind") != KIND]
    if len(own) != 1:
        seen = f"{len(own)} of them" if own else ", ".join(others) or "nothing"
        raise ManifestError(f"saw {seen}, expected one {KIND} ({API_VERSION})")
    (only,) = own
    if only.get("apiVersion") != API_VERSION:
        raise ManifestError(f"apiVersion: saw {only.get('apiVersion')!r:.80}, expected {API_VERSION}")
    metadata = only.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise ManifestError(f"metadata: saw {metadata!r:.80}, expected a mapping")
    kept = {key: metadata[key] for key in ("name", "namespace", *KEPT) if key in metadata}
    if isinstance(annotations := kept.get("annotations"), dict):
        kept["annotations"] = {key: value for key, value in annotations.items() if key != LAST_APPLIED} or None
    return {"metadata": kept, "spec": only.get("spec", {})}, others


def deep_merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a mapping into another like helm: deep, replacing lists; null deletes."""
    result = dict(base)
    for key, value in over.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            below = result.get(key)
            result[key] = deep_merge(below if isinstance(below, dict) else {}, value)
        else:
            result[key] = value
    return result


def complete(written: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    """Make a complete object for the API server; `namespace` is for a resource that names none."""
    metadata = {"name": NAME, "namespace": namespace} | dict(written.get("metadata") or {})
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": written.get("spec") or {}}


def describe(each: Mapping[str, Any]) -> str:
    """Name an object for people: its kind and name."""
    metadata = each.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return " ".join(str(part) for part in (each.get("kind", "an object without kind"), name) if part)
