"""Numbers and lists in sentences. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def counted(number: int, noun: str) -> str:
    """Write a number of things: `1 node`, `5,000 nodes`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def kubectl(namespace: str, command: str) -> str:
    """Write a command, without a namespace where that is not known: after an empty one it would take the next word for it."""
    return f"kubectl --namespace {namespace} {command}" if namespace else f"kubectl {command}"


def listed(names: Sequence[str]) -> str:
    """Write names, at least one: `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def first_few(names: Sequence[str], most: int) -> str:
    """Write the first names, and count the others: `a, b, c and 4 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
