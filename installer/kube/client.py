"""The API server as the node agent reaches it: with which credentials, and one request at a time.

Credentials are read anew for each request, as the kubelet replaces a projected token long before it expires (F4).
"""

from __future__ import annotations

import dataclasses
import json
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp

from installer.documents import from_yaml, read_file
from installer.kube.kopf import kopf
from installer.kube.names import DAEMONSET
from plugin.pod import PodsUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PATIENCE = 30.0  # seconds for one request: to give up sooner and ask again keeps a busy server from doing anything else
PODS_PATIENCE = 5.0  # seconds for a pod that is asked for by name: the runtime waits for it
CONNECTIONS = 8  # at once, to ask for pods
LONGEST_AFTER = 60.0  # seconds for which it, or what is in front of it, is left alone because it has said so
METADATA = (
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"  # of a list of objects, their metadata alone
)

_WHAT_TO_DO = {
    401: "the credentials are refused: is the service account's token expired or revoked?",
    403: "the service account lacks a right: is the chart's ClusterRole istio-cni-node of this release, and bound to it?",
    429: "the API server has too much to do",
}

_LOST = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError)
_MISTRUSTED = (aiohttp.ClientSSLError, ssl.SSLError)


class ApiError(PodsUnavailable):
    """The API server did not do what it was asked for.

    Attributes:
        status: its answer's; 0 if there was none.
        after: seconds for which it wants to be left alone.
        is_outage: it could not be reached, or could not answer; not that it has refused, or was not trusted.
        is_not_found: whether the API server itself says that what was asked for is not there, and not a load balancer.
    """

    def __init__(
        self,
        message: str,
        status: int = 0,
        after: float = 0.0,
        *,
        is_outage: bool = False,
        is_not_found: bool = False,
    ) -> None:
        super().__init__(message)
        self.status, self.after, self.is_not_found = status, after, is_not_found
        self.is_outage = is_outage or status == 429 or status >= 500


class CredentialsError(Exception):
    """There are no credentials: the message says what was seen, what was expected and what to do."""


def credentials(kubeconfig: Path | None) -> kopf.ConnectionInfo:
    """Read how to reach the API server, as it is now.

    Args:
        kubeconfig: a file; None for the service account of the pod that we run in.

    Raises:
        CredentialsError: if there is nothing to be read, or it is not what it should be.
    """
    try:
        return _from_kubeconfig(kubeconfig) if kubeconfig else _from_service_account(SERVICE_ACCOUNT, os.environ)
    except OSError as error:
        raise CredentialsError(f"{error.filename}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CredentialsError(f"a token is no text: {error}, expected what the API server has issued") from error


def _from_service_account(folder: Path, environment: Mapping[str, str]) -> kopf.ConnectionInfo:
    """Take what the kubelet puts into each pod.

    The address is the environment's: the name kubernetes.default.svc is served by pods, which need us to start.
    """
    host, port = (environment.get(f"KUBERNETES_SERVICE_{part}", "") for part in ("HOST", "PORT"))
    if not host or not port:
        raise CredentialsError(
            "no KUBERNETES_SERVICE_HOST and _PORT in the environment, expected those that each pod has; outside a "
            "cluster, give --kubeconfig FILE, or --pods-from DIR to do without one"
        )
    return kopf.ConnectionInfo(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        ca_path=str(folder / "ca.crt"),
        token=(folder / "token").read_text().strip(),
    )


def _from_kubeconfig(path: Path) -> kopf.ConnectionInfo:
    """Take the current context of a kubeconfig: tokens and certificates, in it or in files, relative to it."""
    try:
        (config,) = [each.value for each in from_yaml(read_file(str(path)))]
        chosen = config["current-context"]
        context = _by_name(config["contexts"], chosen)["context"]
        cluster = _by_name(config["clusters"], context["cluster"])["cluster"]
        user = _by_name(config["users"], context["user"]).get("user") or {}
        server = str(cluster["server"])
    except (ValueError, LookupError, TypeError) as error:
        seen = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise CredentialsError(
            f"{path}: {seen}, expected a kubeconfig with a current-context whose cluster and user are in it"
        ) from error
    if unknown := user.keys() & {"exec", "auth-provider"}:
        raise CredentialsError(
            f"{path}: user {context['user']} logs in by {', '.join(sorted(unknown))}, expected a token, a tokenFile or a "
            "client certificate"
        )

    def file(holder: Mapping[str, Any], key: str) -> str | None:
        # The data wins over the file, as in kubectl; kopf takes one of them.
        return str(path.parent / holder[key]) if holder.get(key) and not holder.get(f"{key}-data") else None

    token_file = file(user, "tokenFile")
    return kopf.ConnectionInfo(
        server=server,
        ca_path=file(cluster, "certificate-authority"),
        ca_data=cluster.get("certificate-authority-data"),
        insecure=cluster.get("insecure-skip-tls-verify"),
        certificate_path=file(user, "client-certificate"),
        certificate_data=user.get("client-certificate-data"),
        private_key_path=file(user, "client-key"),
        private_key_data=user.get("client-key-data"),
        token=Path(token_file).read_text().strip() if token_file else user.get("token"),
    )


def _by_name(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return {item["name"]: item for item in items}[name]


class Request(NamedTuple):
    """One request: what is asked of the API server, and how many seconds it may take."""

    method: str
    path: str
    query: Mapping[str, str] | None
    headers: Mapping[str, str]
    data: str | None = None
    patience: float = PATIENCE


class ApiServer:
    """Asks the API server, one request at a time. Belongs to one event loop."""

    def __init__(self, kubeconfig: Path | None) -> None:
        self._kubeconfig = kubeconfig
        self._reached: tuple[kopf.ConnectionInfo, int] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def get(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        accept: str = "application/json",
        patience: float = PATIENCE,
    ) -> Any | None:
        """Ask once.

        Returns:
            The answer, parsed; None if the API server says that this object, or this kind, is not there.

        Raises:
            ApiError: for everything else, such as the 404 of something in front of it (F36), also when it takes longer than
                `patience` seconds.
        """
        try:
            answer = await self._request(Request("GET", path, query, {"Accept": accept}, None, patience))
        except ApiError as error:
            if error.is_not_found:
                return None
            raise
        if answer is None:
            raise ApiError(f"the API server answered null, expected what is at {path}")
        return answer

    async def apply(self, path: str, wanted: Mapping[str, Any]) -> Any:
        """Have an object, or its status, be as wanted, by server-side apply: fields of others stay as they are.

        Raises:
            ApiError: if it was not done.
        """
        query = {"fieldManager": DAEMONSET, "force": "true"}
        headers = {"Content-Type": "application/apply-patch+yaml"}
        return await self._request(Request("PATCH", path, query, headers, json.dumps(wanted)))

    async def create(self, path: str, wanted: Mapping[str, Any]) -> Any:
        """Create an object.

        Raises:
            ApiError: if it was not done.
        """
        headers = {"Content-Type": "application/json"}
        return await self._request(Request("POST", path, None, headers, json.dumps(wanted)))

    async def delete(self, path: str, uid: str, propagation: str = "") -> None:
        """Delete an object, unless another of its name has taken its place.

        Args:
            path: the object's.
            uid: its uid.
            propagation: what becomes of its dependents, such as `Foreground`; empty: as the kind has it.

        Raises:
            ApiError: if it was not done.
        """
        asked = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        asked |= {"propagationPolicy": propagation} if propagation else {}
        headers = {"Content-Type": "application/json"}
        await self._request(Request("DELETE", path, None, headers, json.dumps(asked)))

    async def _request(self, asked: Request) -> Any:
        try:
            info = credentials(self._kubeconfig)
        except CredentialsError as error:
            raise ApiError(f"no credentials for the API server: {error}") from error
        url, headers = info.server.rstrip("/") + asked.path, info.as_http_headers() | dict(asked.headers)
        given: dict[str, Any] = {"params": asked.query, "headers": headers, "data": asked.data}
        try:
            session = await self._connected(info)
            limit = aiohttp.ClientTimeout(total=asked.patience)
            # It redirects nobody; whoever does is not the one to be asked, and gets no token.
            async with session.request(asked.method, url, **given, timeout=limit, allow_redirects=False) as answer:
                if answer.status >= 300:
                    raise await refusal(info.server, asked.path, answer)
                return await answer.json()
        except TimeoutError as error:
            raise ApiError(f"{info.server} did not answer within {asked.patience:g} s", is_outage=True) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            is_outage = isinstance(error, _LOST) and not isinstance(error, _MISTRUSTED)
            said = f"{info.server} cannot be asked: {error or type(error).__name__}"
            raise ApiError(said, is_outage=is_outage) from error

    async def close(self) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()
            self._session = None

    async def _connected(self, info: kopf.ConnectionInfo) -> aiohttp.ClientSession:
        """Keep the session while all but the token is as it was: making a TLS context costs more than a question.

        An authority that is replaced is read anew from its file.
        """
        reached = dataclasses.replace(info, token=None), _age_of_authority(info)
        if self._session is None or reached != self._reached:
            left, self._reached = self._session, reached
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=info.as_ssl_context())
            )
            if left:
                await left.close()
        return self._session


def _age_of_authority(info: kopf.ConnectionInfo) -> int:
    return os.stat(info.ca_path).st_mtime_ns if info.ca_path else 0  # noqa: PTH116


async def refusal(server: str, path: str, answer: aiohttp.ClientResponse) -> ApiError:
    """Make the error of an answer that is not what was asked for."""
    text = await answer.text()
    said = f"{server} answered {answer.status}: {_why(answer.status, text)}"
    is_not_found = answer.status == 404 and _is_not_found(answer, text, path)
    return ApiError(said, answer.status, _after(answer), is_not_found=is_not_found)


def _after(answer: aiohttp.ClientResponse) -> float:
    text = answer.headers.get("Retry-After", "")
    return min(float(text), LONGEST_AFTER) if text.isascii() and text.isdecimal() else 0.0


def _why(status: int, text: str) -> str:
    said = text[:300]
    return f"{_WHAT_TO_DO[status]} ({said})" if status in _WHAT_TO_DO else said


def _is_not_found(answer: aiohttp.ClientResponse, text: str, path: str) -> bool:
    """Say whether a 404 is the API server's own, and about what was asked for.

    Of an object it says so in a Status that names it; of a kind that it does not serve in a line of text, with the header that
    each of its answers has.
    """
    if answer.content_type != "application/json":
        return _named(path) is None and "Audit-Id" in answer.headers
    try:
        said = json.loads(text)
        details = said["details"]
        name, kind, group = (details.get(key) or "" for key in ("name", "kind", "group"))
    except (ValueError, LookupError, TypeError, AttributeError):
        return False
    is_status = (said.get("kind"), said.get("apiVersion"), said.get("reason")) == ("Status", "v1", "NotFound")
    return is_status and (group, kind, name) == _named(path)


def _named(path: str) -> tuple[str, str, str] | None:
    """Read from a path which object it is of: group, plural and name; None if it is of several.

    Paths are /api/v1/... of the core's group and /apis/GROUP/VERSION/..., then namespaces/NAME/ where the kind has them.
    """
    _, api, *parts = path.split("/")
    group = parts.pop(0) if api == "apis" else ""
    of = parts[1:]  # after the version
    if len(of) > 2 and of[0] == "namespaces":
        of = of[2:]
    return (group, of[0], of[1]) if len(of) > 1 else None
