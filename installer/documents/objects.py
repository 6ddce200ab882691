"""Objects of Kubernetes in parsed documents, whatever these hold. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def objects_in(document: object) -> Iterator[object]:
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
        yield from objects_in(like | item if isinstance(item, dict) and "kind" not in item else item)


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
