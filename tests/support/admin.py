"""The API server as its admin asks it, over a connection that is kept.

A run of kubectl costs a tenth of a second of a processor: that is for what kubectl itself is to be seen doing.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import urllib3
from urllib3.connection import HTTPSConnection

from plugin.netns import NetnsFd, entered

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence
    from pathlib import Path

JSON, MERGE, OPERATIONS = "application/json", "application/merge-patch+json", "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
_METADATA = f"{JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_DISCOVERY = f"{JSON};as=APIGroupDiscoveryList;g=apidiscovery.k8s.io;v=v2"
_SLOWEST = 60.0  # seconds for an answer


class Admin:
    """Reads and writes objects as plain mappings, by their paths."""

    def __init__(self, url: str, token: str, certificate: Path, netns: Path | None = None) -> None:
        """Prepare; the first request connects, from another network namespace if one is given."""
        self._url, self._headers = url, {"Authorization": f"Bearer {token}"}
        self._pool = urllib3.PoolManager(ca_certs=str(certificate), timeout=_SLOWEST)
        if netns:
            inside = type("Inside", (urllib3.HTTPSConnectionPool,), {"ConnectionCls": partial(_Inside, netns)})
            self._pool.pool_classes_by_scheme = {"https": inside}
        self._kinds: dict[tuple[str, str], tuple[str, bool]] = {}  # of apiVersion and kind: plural, whether namespaced
        self._roots: dict[
            str, tuple[str, str, bool]
        ] = {}  # of a kind's name as kubectl takes it: root, plural, the same

    def is_ready(self) -> bool:
        """Tell whether the server says that it is ready; an error of the connection is passed on."""
        return bool(
            self._pool.request("GET", f"{self._url}/readyz", headers=self._headers, retries=False).status == 200
        )

    def read(self, path: str, accept: str = JSON) -> dict[str, Any]:
        """Read an object or a list; empty if there is none."""
        return self._request("GET", path, None, {"Accept": accept}, may_be_missing=True)

    def version(self, path: str) -> str:
        """Return an object's resourceVersion; empty if there is none."""
        return str(self.read(path, _METADATA).get("metadata", {}).get("resourceVersion", ""))

    def history(self, path: str, since: str) -> list[dict[str, Any]]:
        """Return an object as each write has left it after a resourceVersion, in order."""
        collection, _, name = path.rpartition("/")
        asked = f"{collection}?watch=true&timeoutSeconds=1&resourceVersion={since}&fieldSelector=metadata.name%3D{name}"
        answer = self._pool.request("GET", self._url + asked, headers=self._headers)
        seen = [json.loads(line) for line in answer.data.splitlines()]
        assert answer.status == 200, f"{asked}: {answer.status}: {answer.data.decode()}"
        assert all(each["type"] in ("ADDED", "MODIFIED", "DELETED") for each in seen), seen
        return [each["object"] for each in seen]

    def create(self, path: str, what: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object in a collection, or ask a subresource."""
        return self._request("POST", path, what, {"Content-Type": JSON})

    def update(self, path: str, what: Mapping[str, Any]) -> None:
        """Write an object, or a subresource of it, as a whole."""
        self._request("PUT", path, what, {"Content-Type": JSON})

    def merge(self, path: str, patch: Mapping[str, Any]) -> None:
        """Patch an object, or its status."""
        self._request("PATCH", path, patch, {"Content-Type": MERGE})

    def edit(self, path: str, *operations: Mapping[str, Any]) -> None:
        """Patch an object by operations (RFC 6902)."""
        self._request("PATCH", path, operations, {"Content-Type": OPERATIONS})

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Do what `kubectl apply --server-side --force-conflicts` does."""
        for each in objects:
            path = f"{self.path(each)}?fieldManager=kubectl&force=true"
            self._request("PATCH", path, each, {"Content-Type": APPLY})

    def replace(self, what: Mapping[str, Any], field: str) -> dict[str, Any]:
        """Create an object, or replace one field of it, and return it."""
        path = self.path(what)
        if self.version(path):  # by an operation, which meets no other's write
            replaced = {"op": "add", "path": f"/{field}", "value": what[field]}
            return self._request("PATCH", path, [replaced], {"Content-Type": OPERATIONS})
        return self.create(path.rpartition("/")[0], what)

    def delete(self, path: str) -> None:
        """Delete an object, or all of a collection, at once; nothing has to be there."""
        self._request("DELETE", path, {"gracePeriodSeconds": 0}, {"Content-Type": JSON}, may_be_missing=True)

    def path(self, of: Mapping[str, Any]) -> str:
        """Return the path of an object; without a namespace of its own it is in `default`."""
        version, kind, metadata = of["apiVersion"], of["kind"], of["metadata"]
        root = "/api/v1" if version == "v1" else f"/apis/{version}"
        if (version, kind) not in self._kinds:
            for each in self.read(root)["resources"]:
                if "/" not in each["name"]:
                    self._kinds[version, each["kind"]] = each["name"], each["namespaced"]
        plural, namespaced = self._kinds[version, kind]
        within = f"/namespaces/{metadata.get('namespace', 'default')}" if namespaced else ""
        return f"{root}{within}/{plural}/{metadata['name']}"

    def find(self, what: str, namespace: str) -> str:
        """Return the path of an object or of a list of them.

        Args:
            what: as kubectl takes it, `KIND` or `KIND/NAME`; the kind in plural, singular or short.
            namespace: which one, if the kind has them.
        """
        kind, _, name = what.partition("/")
        if kind not in self._roots:
            self._discover()
        root, plural, namespaced = self._roots[kind]
        within = f"/namespaces/{namespace}" if namespaced else ""
        return "/".join([f"{root}{within}", plural, *([name] if name else [])])

    def _discover(self) -> None:
        for start in ("/apis", "/api"):  # of two kinds of one name, that of the core counts
            for group in self.read(start, _DISCOVERY)["items"]:
                for version in group["versions"][::-1]:  # the preferred one is the first
                    root = "/".join([start, *group["metadata"].values(), version["version"]])
                    for each in version["resources"]:
                        names = (each["resource"], each["singularResource"], *each.get("shortNames", ()))
                        is_namespaced = each["scope"] == "Namespaced"
                        self._roots |= dict.fromkeys(names, (root, each["resource"], is_namespaced))

    def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None,
        headers: Mapping[str, str],
        *,
        may_be_missing: bool = False,
    ) -> dict[str, Any]:
        data = None if body is None else json.dumps(body)
        answer = self._pool.request(method, self._url + path, body=data, headers={**self._headers, **headers})
        if may_be_missing and answer.status == 404:
            return {}
        assert answer.status < 300, f"{method} {path}: {answer.status}: {answer.data.decode()}"
        read: dict[str, Any] = answer.json()
        return read


class _Inside(HTTPSConnection):
    """A connection from another network namespace."""

    def __init__(self, netns: Path, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._netns = netns

    def _new_conn(self) -> socket.socket:
        with ThreadPoolExecutor(1) as pool:  # not on the main thread, which must stay where it is
            return pool.submit(self._connect).result()

    def _connect(self) -> socket.socket:
        fd = NetnsFd(os.open(self._netns, os.O_RDONLY | os.O_CLOEXEC))
        try:
            with entered(fd):
                return super()._new_conn()
        finally:
            os.close(fd)
