"""Reads from the API server for `install-cni status`: lists in pages, and watches that continue where a list ended.

`install-cni explain` and `trace` use it as well.

It uses the package `kubernetes`, as people's kubeconfigs use credential plugins (`exec`), proxies and several files, which
`installer.kube.client` does not support; its import takes a third of a second, too much for a node agent and little for a
command. Responses are compressed, and large unused parts are dropped: a node's images, and field ownership.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import urllib3
from kubernetes import client
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

from installer.documents.depth import read_as_deep_as_the_api_server
from installer.documents.reader import check_file
from installer.kube.names import CONTROLLER, DAEMONSET
from installer.status.model import Cause, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from installer.status.model import Object

PAGE = 500  # objects
PATIENCE = 10.0  # seconds to connect, and for each part of a response
WATCH = 300  # seconds after which the API server ends a watch, which is then restarted


class UnreachableError(Exception):
    """The API server cannot be reached: the message says what was seen, what was expected and what to do."""


class ExpiredError(Exception):
    """The list must be read again: the API server no longer has the changes since then (410)."""


class NotWatchedError(Exception):
    """The API server allows the list, but not the watch."""


class Source(NamedTuple):
    """A list to read.

    Attributes:
        resource: `<plural>` or `<plural>.<group>`, as kubectl takes it.
        path: the API path.
        query: selectors.
        namespace: the namespace; None: the whole cluster.
    """

    resource: str
    path: str
    query: Mapping[str, str]
    namespace: str | None


def sources(namespace: str | None) -> dict[str, Source]:
    """Return the lists of the whole cluster, by the names in `Answers`.

    Without the DaemonSet's namespace all are searched.
    """
    within = f"/namespaces/{namespace}" if namespace else ""
    named = {"fieldSelector": f"metadata.name={DAEMONSET}"}
    planes, reports = "istiocontrolplanes.install.istio.io", "istiocninodes.cni.istio.io"
    return {
        "planes": Source(planes, "/apis/install.istio.io/v1alpha2/istiocontrolplanes", {}, None),
        "reports": Source(reports, "/apis/cni.istio.io/v1alpha1/istiocninodes", {}, None),
        "nodes": Source("nodes", "/api/v1/nodes", {}, None),
        "daemonsets": Source("daemonsets.apps", f"/apis/apps/v1{within}/daemonsets", named, namespace),
    }


def sources_in(namespace: str) -> dict[str, Source]:
    """Return the lists of the DaemonSet's namespace, by the names in `Answers`."""
    labelled, named = {"labelSelector": f"k8s-app={DAEMONSET}"}, {"fieldSelector": f"metadata.name={CONTROLLER}"}
    deployments = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    return {
        "pods": Source("pods", f"/api/v1/namespaces/{namespace}/pods", labelled, namespace),
        "controllers": Source("deployments.apps", deployments, named, namespace),
    }


class Listed(NamedTuple):
    """A list: its objects, and the version at which a watch continues."""

    objects: list[Object]
    version: str


class Event(NamedTuple):
    """An event of a watch: `kind` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    kind: str
    object: Object


class Access:
    """The API server, with the caller's credentials; raises UnreachableError if it does not answer, or not to these."""

    def __init__(self, kubeconfig: Path | None, context: str | None) -> None:
        """Read the credentials: the given file, or $KUBECONFIG, ~/.kube/config, the pod's service account."""
        read_as_deep_as_the_api_server()
        self._configuration, self._where = _configuration(kubeconfig, context)
        self._http = client.ApiClient(self._configuration).rest_client.pool_manager

    def listed(self, source: Source) -> Listed | Unavailable:
        """List, in pages."""
        for limit in (PAGE, 0):  # a list whose next page has expired is read again unpaged, like kubectl does
            found: list[Object] = []
            token = ""
            while True:
                query = {**source.query, **({"limit": str(limit)} if limit else {})}
                status, body = self._get(source, {**query, **({"continue": token} if token else {})})
                if status == 410 and token:
                    break
                if status != 200:
                    return _unavailable(source, status, body)
                try:
                    response = json.loads(body)
                    found += map(_trim, response["items"])
                    token = response["metadata"].get("continue") or ""
                    version = response["metadata"].get("resourceVersion") or ""
                except (ValueError, LookupError, TypeError, AttributeError) as error:
                    seen = (
                        f"saw {body[:80]!r}, expected a list of {source.resource} as JSON: is a proxy in front of it?"
                    )
                    raise UnreachableError(f"{self._where}: {seen}") from error
                if not token:
                    return Listed(found, version)
        return Unavailable(source.resource, Cause.FAILED, "410: the list expired twice", source.namespace)

    def got(self, source: Source) -> Object | Unavailable:
        """Get the one object at the source's path; a missing object reads like a missing definition."""
        status, body = self._get(source, source.query)
        if status != 200:
            return _unavailable(source, status, body)
        try:
            return dict(json.loads(body))
        except (ValueError, TypeError) as error:
            seen = f"saw {body[:80]!r}, expected one of {source.resource} as JSON: is a proxy in front of it?"
            raise UnreachableError(f"{self._where}: {seen}") from error

    def watch(self, source: Source, version: str) -> Iterator[Event]:
        """Yield changes; when the API server ends the watch, restart it from the last event's version.

        Raises:
            ExpiredError: if the list must be read again.
            NotWatchedError: if the watch is not allowed.
        """
        query = {**source.query, "watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
        response = self._request(source, {**query, "timeoutSeconds": str(WATCH)}, reading=WATCH + PATIENCE)
        try:
            if response.status == 410:
                raise ExpiredError
            if response.status != 200:
                raise NotWatchedError
            rest = b""
            for part in response.stream(amt=None, decode_content=True):
                *lines, rest = (rest + part).split(b"\n")
                for line in filter(None, lines):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise ExpiredError
                    yield Event(event["type"], _trim(event["object"]))
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise UnreachableError(f"{self._where}: the watch of {source.resource} broke off: {error}") from error
        finally:
            response.release_conn()
            response.close()

    def _get(self, source: Source, query: Mapping[str, str]) -> tuple[int, bytes]:
        response = self._request(source, query, reading=PATIENCE)
        try:
            return response.status, response.data
        except urllib3.exceptions.HTTPError as error:
            raise UnreachableError(f"{self._where}: the list of {source.resource} broke off: {error}") from error

    def _request(self, source: Source, query: Mapping[str, str], reading: float) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "install-cni"}
        try:
            bearer = self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
            if bearer:
                headers["Authorization"] = bearer
            response = self._http.request(
                "GET",
                self._configuration.host.rstrip("/") + source.path,
                fields=query,
                headers=headers,
                timeout=urllib3.Timeout(connect=PATIENCE, read=reading),
                # A busy API server (429) says when to retry; an unreachable one is reported at once.
                retries=urllib3.Retry(connect=0, read=0, other=0, status=3, raise_on_status=False),
                preload_content=False,
            )
        except (urllib3.exceptions.HTTPError, ConfigException) as error:
            raise UnreachableError(f"{self._where}: {_describe(error)}") from error
        if response.status == 401:
            response.close()
            raise UnreachableError(
                f"{self._where}: 401, the credentials are refused: log in again, or give another --context"
            )
        return response


def _trim(item: dict[str, Any]) -> Object:
    """Drop the large unused parts of an object; of managedFields, times and the owners of conditions stay."""
    metadata, status = item["metadata"], item.get("status") or {}
    for entry in metadata.get("managedFields") or ():
        owned = (entry.get("fieldsV1") or {}).get("f:status") or {}
        entry["fieldsV1"] = {"f:status": {"f:conditions": owned.get("f:conditions") or {}}}
    status.pop("images", None)
    return item


def _unavailable(source: Source, status: int, body: bytes) -> Unavailable:
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, LookupError, TypeError):
        message = body.decode(errors="replace").strip()[:300]
    cause = {403: Cause.FORBIDDEN, 404: Cause.NO_DEFINITION}.get(status, Cause.FAILED)
    return Unavailable(source.resource, cause, f"{status}: {message}", source.namespace)


def _configuration(kubeconfig: Path | None, context: str | None) -> tuple[client.Configuration, str]:
    """Read credentials, and describe their source."""
    configuration = client.Configuration()
    paths = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
    existing = [each for each in paths.split(os.pathsep) if each and Path(each).exists()]
    try:
        for each in existing:
            check_file(each)
        if kubeconfig or context or existing:
            load_kube_config(paths, context=context, client_configuration=configuration, persist_config=False)  # type: ignore[no-untyped-call]
            return configuration, f"{configuration.host} ({paths}{f', context {context}' if context else ''})"
        if os.environ.get("KUBERNETES_SERVICE_HOST"):
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            return configuration, f"{configuration.host} (the pod's service account)"
    except (ConfigException, OSError, ValueError, TypeError) as error:
        raise UnreachableError(f"{paths}: {_describe(error)}") from error
    raise UnreachableError(
        f"no {paths} and not in a pod, expected a kubeconfig: give --kubeconfig FILE, or set KUBECONFIG"
    )


def _describe(error: BaseException) -> str:
    """Return the error that urllib3 wraps: the operating system's message rather than objects and their addresses."""
    reason = getattr(error, "reason", None)
    cause = reason if isinstance(reason, BaseException) else error
    text = " ".join(str(cause).split())
    return text.split(">: ", 1)[-1] or type(cause).__name__
