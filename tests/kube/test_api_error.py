"""Whose refusal it is: the API server's own, or that of something in front of it (F36)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from installer.kube.api_error import Answer

pytestmark = pytest.mark.pure

PATH = "/api/v1/nodes/worker-1"
FORBIDDEN: dict[str, Any] = {
    "kind": "Status",
    "apiVersion": "v1",
    "reason": "Forbidden",
    "message": 'nodes "worker-1" is forbidden: User "a" cannot get resource "nodes"',
    "details": {"name": "worker-1", "kind": "nodes"},
}
UNAUTHORIZED = {"kind": "Status", "apiVersion": "v1", "reason": "Unauthorized", "message": "Unauthorized"}


@pytest.mark.parametrize(
    ("status", "body", "kind", "expected"),
    [
        (403, FORBIDDEN, "application/json", True),
        (401, UNAUTHORIZED, "application/json", True),
        (403, FORBIDDEN | {"details": {"name": "worker-2", "kind": "nodes"}}, "application/json", False),
        (403, FORBIDDEN | {"details": None}, "application/json", False),
        (403, UNAUTHORIZED, "application/json", False),
        (401, FORBIDDEN, "application/json", False),
        (403, FORBIDDEN, "text/html", False),
        (403, "<html>go away</html>", "text/html", False),
        (403, {"message": "no"}, "application/json", False),
        (404, FORBIDDEN | {"reason": "NotFound"}, "application/json", False),
        (503, FORBIDDEN, "application/json", False),
    ],
)
def test_only_the_api_servers_own_refusal_counts(status: int, body: object, kind: str, *, expected: bool) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    assert Answer(status, {"Content-Type": kind}, text).error("https://api", PATH).is_refusal is expected
