"""The API client of agent, controller and `teardown`: asynchronous, one request at a time, plain mappings.

Credentials are read again for each request (F4). `status` and `explain` use people's kubeconfigs, with credential plugins
and proxies: the package `kubernetes` handles these (`installer.status.access`), and the Lease, which has threads
of its own.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import ssl
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.kube.aiohttp import aiohttp
from installer.kube.api_error import Answer, ApiError
from installer.kube.credentials import CredentialsError, credentials
from installer.kube.names import DAEMONSET

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from installer.kube.kopf import kopf

PATIENCE = 30.0  # seconds for one request: shorter timeouts with retries would overload a busy server
PODS_PATIENCE = 5.0  # seconds for a pod requested by name: the runtime waits for it
CONNECTIONS = 8  # at once
PAGE = 500  # objects in one page of a list: 5,000 whole Nodes at once are hundreds of megabytes
JSON = "application/json"
METADATA = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"  # a list of the objects' metadata alone
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"

# What only an escape may say in YAML, in which the API server takes an apply: a line break, and what is not printable.
_ESCAPED_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

_LOST = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError)
_MISTRUSTED = (aiohttp.ClientSSLError, ssl.SSLError)


class Request(NamedTuple):
    """One request to the API server, and its timeout in seconds."""

    method: str
    path: str
    query: Mapping[str, str] | None
    headers: Mapping[str, str]
    data: str | None
    patience: float


class ApiClient:
    """Sends requests to the API server; they raise ApiError if they were not carried out. Belongs to one event loop."""

    def __init__(self, kubeconfig: Path | None, *, field_manager: str = DAEMONSET, patience: float = PATIENCE) -> None:
        """Prepare; the first request connects. `patience` is in seconds for one request."""
        self._kubeconfig = kubeconfig
        self._manager = {"fieldManager": field_manager}
        self._patience = patience
        self._connected_with: tuple[kopf.ConnectionInfo, int] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def get(
        self, path: str, query: Mapping[str, str] | None = None, accept: str = JSON, patience: float | None = None
    ) -> Any | None:
        """Read one object, or one page of a list.

        Returns:
            The response, parsed; None if the API server says that the object or kind does not exist.

        Raises:
            ApiError: for every other failure, such as the 404 of a proxy in front of it (F36), and for a request that takes
                longer than `patience` seconds.
        """
        request = Request("GET", path, query, {"Accept": accept}, None, patience or self._patience)
        try:
            answer = await self._request(request)
        except ApiError as error:
            if error.is_not_found:
                return None
            raise
        if answer is None:
            raise ApiError(f"the API server answered null, expected what is at {path}")
        return answer

    async def list_objects(
        self, path: str, query: Mapping[str, str] | None = None, accept: str = JSON, page: int = PAGE
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the current objects of a list, a page at a time.

        Raises:
            ApiError: if it cannot be read completely; 404 if the kind does not exist, 410 if the next page has expired.
        """
        parameters = {**(query or {}), "limit": str(page)}
        while True:
            answer = await self._request(Request("GET", path, parameters, {"Accept": accept}, None, self._patience))
            try:
                items: list[dict[str, Any]] = answer["items"] or []  # the API server writes an empty list as null
                token = answer["metadata"].get("continue")
            except (LookupError, TypeError, AttributeError) as error:
                raise ApiError(f"saw {answer!s:.120}, expected a list at {path}") from error
            del answer  # frees this page before the next one is read
            for each in items:
                yield each
            if not token:
                return
            parameters["continue"] = token

    async def apply(self, path: str, wanted: Mapping[str, Any], *, force: bool = True) -> dict[str, Any]:
        """Apply an object, or its status, with server-side apply: other managers' fields stay unchanged."""
        query = self._manager | {"force": "true"} if force else self._manager
        return await self._write("PATCH", path, wanted, query, APPLY)

    async def merge(self, path: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        """Patch an object, or its status."""
        return await self._write("PATCH", path, patch, self._manager, MERGE)

    async def create(self, path: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object."""
        return await self._write("POST", path, wanted, self._manager)

    async def delete(self, path: str, uid: str = "", propagation: str = "") -> dict[str, Any]:
        """Delete an object, unless its name now belongs to another one; return it, as it is being deleted, or a Status.

        Without `uid` any object of this name goes. `propagation`, such as `Foreground`, is the deletion of its dependents;
        empty: the kind's default.
        """
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        options |= {"preconditions": {"uid": uid}} if uid else {}
        options |= {"propagationPolicy": propagation} if propagation else {}
        return await self._write("DELETE", path, options)

    async def close(self) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()
            self._session = None

    async def _write(
        self, method: str, path: str, body: Mapping[str, Any], query: Mapping[str, str] | None = None, kind: str = JSON
    ) -> dict[str, Any]:
        request = Request(method, path, query, {"Content-Type": kind}, _encode(body), self._patience)
        written: dict[str, Any] = await self._request(request)
        return written

    async def _request(self, request: Request) -> Any:
        try:
            info = credentials(self._kubeconfig)
        except CredentialsError as error:
            raise ApiError(f"no credentials for the API server: {error}") from error
        url, headers = info.server.rstrip("/") + request.path, info.as_http_headers() | dict(request.headers)
        options: dict[str, Any] = {"params": request.query, "headers": headers, "data": request.data}
        try:
            session = await self._connected(info)
            limit = aiohttp.ClientTimeout(total=request.patience)
            # An API server never redirects; another server that does must not get the token.
            async with session.request(
                request.method, url, **options, timeout=limit, allow_redirects=False
            ) as response:
                if response.status >= 300:
                    text = await response.text()
                    raise Answer(response.status, response.headers, text).error(info.server, request.path)
                return await response.json()
        except TimeoutError as error:
            raise ApiError(f"{info.server} did not answer within {request.patience:g} s", is_outage=True) from error
        except (aiohttp.ClientError, OSError, ValueError, RecursionError) as error:
            is_outage = isinstance(error, _LOST) and not isinstance(error, _MISTRUSTED)
            reason = f"a request to {info.server} failed: {error or type(error).__name__}"
            raise ApiError(reason, is_outage=is_outage) from error

    async def _connected(self, info: kopf.ConnectionInfo) -> aiohttp.ClientSession:
        """Keep the session while only the token changes: a TLS context costs more than a request.

        A replaced file of a certificate authority is read again.
        """
        authority = os.stat(info.ca_path).st_mtime_ns if info.ca_path else 0  # noqa: PTH116
        connect_with = dataclasses.replace(info, token=None), authority
        if self._session is None or connect_with != self._connected_with:
            previous, self._connected_with = self._session, connect_with
            connector = aiohttp.TCPConnector(limit=CONNECTIONS, ssl=info.as_ssl_context())
            self._session = aiohttp.ClientSession(connector=connector)
            if previous:
                await previous.close()
        return self._session


def _encode(body: Mapping[str, Any]) -> str:
    """Write JSON that is YAML, too, which has no pairs of escapes for one character: such a character is not escaped.

    What is no character, such as a byte of a file's name that is not UTF-8, is replaced.
    """
    text = _LONE_SURROGATE.sub("\ufffd", json.dumps(body, ensure_ascii=False))
    return _ESCAPED_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
