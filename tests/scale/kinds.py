"""What requests have in common: which of them a node agent makes, whatever the node and the time."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable

_OF_THE_MOMENT = ("resourceVersion", "continue", "timeoutSeconds")  # parameters whose values differ each time


def kind(verb: str, uri: str, node: str) -> str:
    """Name a request without what only this node and this moment have: verb, path and query, its parameters sorted.

    Args:
        verb: the API server's, such as `list` or `watch`.
        uri: path and query.
        node: the name of the node whose agent asks.
    """
    asked = urlsplit(uri)
    path = re.sub(rf"(?<=/){re.escape(node)}(?=/|$)", "NODE", asked.path)
    query = [
        (name, "…" if name in _OF_THE_MOMENT else value.replace(f"={node}", "=NODE"))
        for name, value in sorted(parse_qsl(asked.query, keep_blank_values=True))
    ]
    return " ".join([verb, path, *(f"{name}={value}" for name, value in query)])


def counted(entries: Iterable[dict[str, Any]], node: str) -> Counter[str]:
    """Count the audit log's entries of one agent by kind."""
    return Counter(kind(entry["verb"], entry["requestURI"], node) for entry in entries)
