"""Field ownership in an object's `metadata.managedFields`, and its transfer. Pure.

A field is the path to it in the steps of fieldsV1 (Kubernetes, "Server-Side Apply"): `f:NAME` into a mapping, and
`k:{"name":"NAME"}` to the item of a list that has this name.
"""

from __future__ import annotations

import json
from copy import deepcopy
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Field: TypeAlias = tuple[str, ...]

_ATOMIC = frozenset({"nodeSelector"})  # mappings with a single owner
_ITEM, _ITSELF, _NAME = "k:", ".", "f:name"


def fields(of: Mapping[str, Any]) -> dict[Field, Any]:
    """Return the values of an object by field. List items have names; empty mappings have no field."""
    return dict(_fields(of, ()))


def build_object(values: Mapping[Field, Any]) -> dict[str, Any]:
    """Make the object that has these fields, and the names of the list items that contain them."""
    result: dict[str, Any] = {}
    for field, value in values.items():
        at: Any = result
        for step, following in zip(field, (*field[1:], ""), strict=True):
            if step.startswith(_ITEM):
                key = json.loads(step.removeprefix(_ITEM))
                item = next((each for each in at if key.items() <= each.items()), None)
                if item is None:
                    item = dict(key)
                    at.append(item)
                at = item
            elif not following:
                at[step[2:]] = value
            else:
                at = at.setdefault(step[2:], [] if following.startswith(_ITEM) else {})
    return result


def value(of: Mapping[str, Any], field: Field) -> Any:
    """Return the value of a field in an object; None: the field is missing."""
    at: Any = of
    for step in field:
        if step.startswith(_ITEM):
            key = json.loads(step.removeprefix(_ITEM))
            items = at if isinstance(at, list) else ()
            at = next((each for each in items if isinstance(each, dict) and key.items() <= each.items()), None)
        else:
            at = at.get(step[2:]) if isinstance(at, dict) else None
    return at


def applied_by(of: Mapping[str, Any], manager: str) -> set[Field]:
    """Return the fields of an object that a manager owns by server-side apply."""
    return {field for each in _entries(of) if _is_applier(each, manager) for field in _owned(each["fieldsV1"], ())}


def handed_over(
    of: Mapping[str, Any], transferred: Iterable[Field], *, manager: str, to_owner_of: Field
) -> list[dict[str, Any]]:
    """Transfer fields from a manager that applied them to the owner of another field.

    No value changes, and no field is ever without an owner. A manager that applied that field precedes one that updated it:
    a former installation method may have left the latter. If the field `to_owner_of` has no owner, nobody gets them, and
    anybody may write them.

    Returns:
        The object's new managedFields.
    """
    entries = deepcopy(_entries(of))
    recipients = [
        each
        for each in entries
        if each.get("manager") != manager and not each.get("subresource") and _has(each["fieldsV1"], to_owner_of)
    ]
    recipients = [each for each in recipients if each.get("operation") == "Apply"] or recipients
    for field in transferred:
        for each in entries:
            if _is_applier(each, manager):
                _take(each["fieldsV1"], field)
        for each in recipients:
            _give(each["fieldsV1"], field)
    return [each for each in entries if each["fieldsV1"]]


def _entries(of: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [each for each in of["metadata"].get("managedFields") or () if each.get("fieldsV1")]


def _is_applier(entry: Mapping[str, Any], manager: str) -> bool:
    return (entry.get("manager"), entry.get("operation"), entry.get("subresource", "")) == (manager, "Apply", "")


def _fields(of: Any, at: Field) -> Iterator[tuple[Field, Any]]:
    for name, each in of.items():
        field = (*at, f"f:{name}")
        if isinstance(each, dict) and name not in _ATOMIC:
            yield from _fields(each, field)
        elif isinstance(each, list):
            for item in each:
                own = (*field, _ITEM + json.dumps({"name": item["name"]}, separators=(",", ":")))
                rest = {key: inner for key, inner in item.items() if key != "name"}
                yield from _fields(rest or item, own)
        else:
            yield field, each


def _owned(tree: Mapping[str, Any], at: Field) -> Iterator[Field]:
    is_item = bool(at) and at[-1].startswith(_ITEM)
    skipped = {_ITSELF, _NAME} if is_item and tree.keys() - {_ITSELF, _NAME} else {_ITSELF}
    for step, below in tree.items():
        if step not in skipped:
            if below:
                yield from _owned(below, (*at, step))
            else:
                yield (*at, step)


def _has(tree: Mapping[str, Any], field: Field) -> bool:
    at: Any = tree
    for step in field:
        if step not in at:
            return False
        at = at[step]
    return True


def _take(tree: dict[str, Any], field: Field) -> None:
    step, *rest = field
    below = tree.get(step)
    if below is None:
        return
    if rest:
        _take(below, tuple(rest))
    if not below.keys() - {_ITSELF, _NAME}:
        del tree[step]


def _give(tree: dict[str, Any], field: Field) -> None:
    at = tree
    for step in field:
        at = at.setdefault(step, {})
        if step.startswith(_ITEM):
            at.setdefault(_ITSELF, {})
            at.setdefault(_NAME, {})
