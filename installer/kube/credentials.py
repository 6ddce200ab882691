"""The credentials for the API server: the pod's service account or a kubeconfig.

They are read repeatedly, because the kubelet replaces a projected token long before it expires (F4).
"""

from __future__ import annotations

import dataclasses
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from installer.documents.reader import from_yaml, read_file
from installer.kube.kopf import kopf

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
FRESH = timedelta(minutes=1)  # the age after which kopf reads them again, before its next request


class CredentialsError(Exception):
    """No credentials are available: the message says what was seen, what was expected and what to do."""


def credentials(kubeconfig: Path | None) -> kopf.ConnectionInfo:
    """Read the current address and credentials of the API server.

    Without a kubeconfig they are those of the service account of the pod that this process runs in.

    Raises:
        CredentialsError: if they are missing or invalid.
    """
    try:
        return _from_kubeconfig(kubeconfig) if kubeconfig else _from_service_account(SERVICE_ACCOUNT, os.environ)
    except OSError as error:
        raise CredentialsError(f"{error.filename}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CredentialsError(f"a token is not text: {error}, expected what the API server has issued") from error


class Login:
    """Logs kopf in with the current credentials.

    While they are unchanged, kopf gets the same object: it rejects credentials that the API server rejected, and ends
    rather than retry them at full speed.
    """

    def __init__(self, kubeconfig: Path | None) -> None:
        """Prepare; `kubeconfig` is as `credentials` takes it."""
        self._kubeconfig = kubeconfig
        self._last: kopf.ConnectionInfo | None = None

    def __call__(self) -> kopf.ConnectionInfo:
        """Read them; raises as `credentials` does."""
        now, fresh = datetime.now(UTC), credentials(self._kubeconfig)
        last = self._last
        same = last and dataclasses.replace(last, expiration=None) == fresh
        if not last or not last.expiration or not same or last.expiration <= now:
            last = self._last = dataclasses.replace(fresh, expiration=now + FRESH)
        return last


def _from_service_account(folder: Path, environment: Mapping[str, str]) -> kopf.ConnectionInfo:
    """Read the service account that the kubelet mounts in each pod.

    The address comes from the environment: pods resolve the name kubernetes.default.svc, and they need this agent to start.
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
    """Read the current context of a kubeconfig: tokens and certificates, inline or in files relative to it."""
    try:
        (config,) = [each.value for each in from_yaml(read_file(str(path)))]
        name = config["current-context"]
        context = _by_name(config["contexts"], name)["context"]
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
            f"{path}: user {context['user']} logs in with {', '.join(sorted(unknown))}, expected a token, a tokenFile or "
            "a client certificate"
        )

    def file(holder: Mapping[str, Any], key: str) -> str | None:
        # Data overrides the file, as in kubectl; kopf accepts only one of them.
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
