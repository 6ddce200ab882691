"""Interprets the API server's error responses. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from plugin.pod import PodsUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_RETRY_AFTER = 60.0  # seconds: the longest Retry-After of a server, or of a proxy in front of it, that is obeyed
LONGEST_MESSAGE = 500  # characters of a response to quote

_WHAT_TO_DO = {
    401: "the credentials are refused: is the service account's token expired or revoked?",
    403: "the service account lacks a right: are the chart's roles of this release, and bound to it?",
    429: "the API server is overloaded",
}


class ApiError(PodsUnavailable):
    """The API server did not carry out a request.

    Attributes:
        status: HTTP status of the response; 0 if there was none.
        retry_after: seconds to wait before the next request, as the server asks.
        is_outage: whether it was unreachable or could not answer. A refusal is no outage, nor is an untrusted certificate.
        is_not_found: whether the API server itself, rather than a load balancer, says that the object or kind does not exist.
        is_refusal: whether the API server itself refuses the credentials or denies a right.
        is_transient: whether the same request may succeed soon; a permanent refusal delays nothing else.
    """

    def __init__(
        self,
        message: str,
        status: int = 0,
        retry_after: float = 0.0,
        *,
        is_outage: bool = False,
        is_not_found: bool = False,
        is_refusal: bool = False,
    ) -> None:
        super().__init__(message)
        self.is_refusal = is_refusal
        self.status, self.retry_after, self.is_not_found = status, retry_after, is_not_found
        self.is_outage = is_outage or status == 429 or status >= 500
        self.is_transient = status in (0, 429, 502, 503, 504)


class Answer(NamedTuple):
    """An HTTP response of status 300 or more."""

    status: int
    headers: Mapping[str, str]
    text: str

    def error(self, server: str, path: str) -> ApiError:
        """Make the error for this response of `server`, a URL, to a request of `path`."""
        return ApiError(
            f"{server} answered {self.status}: {self._describe()}",
            self.status,
            self._retry_after(),
            is_not_found=self.status == 404 and self._is_of_the_api_server(path),
            is_refusal=self._is_refusal(path),
        )

    def _describe(self) -> str:
        status = self._status_object()
        message = " ".join(str(status.get("message") or self.text).split())[:LONGEST_MESSAGE]
        remedy = _WHAT_TO_DO.get(self.status)
        return f"{remedy} ({message})" if remedy else message

    def _retry_after(self) -> float:
        text = self.headers.get("Retry-After", "")
        return min(float(text), LONGEST_RETRY_AFTER) if text.isascii() and text.isdecimal() else 0.0

    def _is_of_the_api_server(self, path: str) -> bool:
        """Return whether a 404 is the API server's own and concerns what was requested (F36).

        For an object it sends a Status that names it; for a kind that it does not serve, a line of text with the header
        that each of its responses has.
        """
        requested = named_in(path)
        if not self._is_json:
            return requested is None and "Audit-Id" in self.headers
        status = self._status_object()
        details = status.get("details")
        if not isinstance(details, dict):
            return False
        is_status = (status.get("kind"), status.get("apiVersion"), status.get("reason")) == ("Status", "v1", "NotFound")
        return is_status and tuple(details.get(key) or "" for key in ("group", "kind", "name")) == requested

    def _is_refusal(self, path: str) -> bool:
        """Return whether the API server itself refuses a request: with a Status that, for a missing right, names the object."""
        status = self._status_object() if self._is_json else {}
        if (status.get("kind"), status.get("apiVersion")) != ("Status", "v1"):
            return False
        details = status.get("details")
        requested = named_in(path)
        names = requested is not None and isinstance(details, dict) and details.get("name") == requested[2]
        refusal = self.status, status.get("reason")
        return refusal == (401, "Unauthorized") or (refusal == (403, "Forbidden") and names)

    @property
    def _is_json(self) -> bool:
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower() == "application/json"

    def _status_object(self) -> dict[str, Any]:
        try:
            parsed = json.loads(self.text)
        except (ValueError, RecursionError):
            return {}
        return parsed if isinstance(parsed, dict) else {}


def named_in(path: str) -> tuple[str, str, str] | None:
    """Parse the object that a path names: group, plural and name; None if it names several.

    Paths are /api/v1/... for the core group and /apis/GROUP/VERSION/..., then namespaces/NAME/ for namespaced kinds.
    """
    _, api, *parts = path.split("/")
    group = parts.pop(0) if api == "apis" else ""
    rest = parts[1:]  # after the version
    if len(rest) > 2 and rest[0] == "namespaces":
        rest = rest[2:]
    return (group, rest[0], rest[1]) if len(rest) > 1 else None
