"""Requests to an API server with one token and nothing else: what whoever has it can do."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.support.cluster import Cluster

JSON, MERGE, JSON_PATCH = "application/json", "application/merge-patch+json", "application/json-patch+json"
STRATEGIC, APPLY = "application/strategic-merge-patch+json", "application/apply-patch+yaml"


class Answer(NamedTuple):
    """The API server's: its HTTP status and, where that is no success, what it says."""

    status: int
    message: str


class Request(NamedTuple):
    """One request. It is not carried out but for its answer (dryRun), after all admission."""

    method: str
    path: str
    body: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    kind: str = "application/json"


def ask(cluster: Cluster, token: str, request: Request) -> Answer:
    """Send a request with a token."""
    query = "?dryRun=All" + ("&force=true&fieldManager=istio-cni-controller" if request.kind == APPLY else "")
    asked = urllib.request.Request(
        f"https://127.0.0.1:{cluster.port}{request.path}{query}",
        method=request.method,
        data=None if request.body is None else json.dumps(request.body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": request.kind},
    )
    context = ssl.create_default_context(cafile=str(cluster.certificate))
    try:
        with urllib.request.urlopen(asked, timeout=30, context=context) as answer:  # noqa: S310 - https
            return Answer(answer.status, "")
    except urllib.error.HTTPError as error:
        return Answer(error.code, json.loads(error.read())["message"])
