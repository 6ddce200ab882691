"""Leader election: only the controller that holds the Lease acts, by the rules of client-go's leaderelection.

The elector of the package `kubernetes` does not keep two controllers from acting: its unanswered request outlasts
the lease, an unreachable API server ends its thread silently, it cannot be stopped nor release the lease, and it measures
with the wall clock.

A candidate takes over a lease that has not changed for its duration, measured with the candidate's clock, so that clocks
need not agree. Each write carries the resourceVersion that was read, so that only one of two candidates succeeds.
"""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kubernetes import client, config
from urllib3.exceptions import HTTPError

from installer.documents.reader import check_file
from installer.kube.names import CONTROLLER
from installer.kube.times import rfc3339_micro

if TYPE_CHECKING:
    import threading
    from pathlib import Path

DURATION = 15  # seconds after which another controller may take it over
DEADLINE = 10.0  # seconds without a renewal after which the holder stops acting
RETRY = 2.0  # seconds between attempts
PATIENCE = 3.0  # seconds for one request
_RAW: Any = {"_preload_content": False, "_request_timeout": PATIENCE}  # the response as it is, in time

_log = logging.getLogger(__name__)


class LeaseLostError(Exception):
    """The lease was not renewed in time, or another controller holds it."""


def connect(kubeconfig: Path | None) -> client.ApiClient:
    """Make a client with the credentials of a kubeconfig, or of this process's pod, read again each minute (F4).

    Raises:
        ConfigException: if there are no credentials.
        ManifestError: if the kubeconfig is invalid or too large.
        OSError: if it cannot be read.
    """
    settings = client.Configuration()
    if kubeconfig:
        check_file(str(kubeconfig))
        config.load_kube_config(str(kubeconfig), client_configuration=settings)  # type: ignore[no-untyped-call]
    else:
        config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
    settings.retries = False  # one attempt is one request; retries would exceed the deadline
    return client.ApiClient(settings)


class Lease:
    """A Lease. One thread calls `acquire`, then `hold`; another calls `run_out`; any thread may read `held`."""

    def __init__(self, connection: client.ApiClient, namespace: str, identity: str) -> None:
        """Prepare; `connection` must not retry, and `identity` is unique to this controller."""
        self._api = client.CoordinationV1Api(connection)
        self._namespace = namespace
        self._identity = identity
        self._lease: dict[str, Any] | None = None  # its last state read or written
        self._changed = 0.0  # when that was observed, by our clock
        self._good_until = 0.0
        self._trouble = ""  # why the last renewal failed
        self.holder = ""

    @property
    def held(self) -> bool:
        """Whether this controller may act now."""
        return _now() < self._good_until

    def acquire(self, stop: threading.Event) -> bool:
        """Retry until this controller holds it; False if `stop` is set first."""
        while not stop.is_set():
            try:
                if self._try():
                    _log.info("acquired the lease", extra={"identity": self._identity})
                    return True
            except (client.ApiException, HTTPError, OSError) as error:
                _log.warning("cannot acquire the lease", extra={"reason": _describe(error)})
            stop.wait(RETRY)
        return False

    def hold(self, stop: threading.Event) -> None:
        """Renew it until `stop` is set; raises LeaseLostError if another controller holds it."""
        while not stop.wait(RETRY):
            try:
                if not self._try():
                    self._good_until = 0.0
                    raise LeaseLostError(f"{self.holder} holds the lease")
            except (client.ApiException, HTTPError, OSError) as error:
                self._trouble = f": {_describe(error)}"
                _log.warning("cannot renew the lease", extra={"reason": _describe(error)})
                self._lease = None  # the write may have succeeded

    def run_out(self, stop: threading.Event) -> None:
        """Wait until it expires, or until `stop` is set.

        `hold` may be waiting for a response, this process may have been suspended, and not every write checks `held` first:
        kopf's do not.

        Raises:
            LeaseLostError: if it has expired: from now on another controller may act.
        """
        while not stop.wait(min(1.0, max(0.0, self._good_until - _now()))):
            if not self.held:
                raise LeaseLostError(f"not renewed for {DEADLINE:g} s{self._trouble}")

    def release(self) -> None:
        """Release it, so that the next controller need not wait. Call this after everything that acts has stopped."""
        if not self.held or self._lease is None:
            return
        self._good_until = 0.0
        spec = self._lease["spec"] | {"holderIdentity": "", "leaseDurationSeconds": 1}
        try:
            self._replace(spec)
        except (client.ApiException, HTTPError, OSError) as error:
            _log.warning("cannot release the lease; it will expire", extra={"reason": _describe(error)})

    def _try(self) -> bool:
        """Acquire or renew it; False if another controller holds it."""
        started = _now()
        if self._lease is None or not self._is_ours(self._lease):
            self._read()
        now = rfc3339_micro(datetime.now(UTC))
        own = {"holderIdentity": self._identity, "leaseDurationSeconds": DURATION, "renewTime": now}
        if self._lease is None:
            self._create(own | {"acquireTime": now, "leaseTransitions": 0})
        else:
            spec = self._lease["spec"]
            if not self._is_ours(self._lease):
                if self.holder and started < self._changed + spec.get("leaseDurationSeconds", DURATION):
                    return False
                own |= {"acquireTime": now, "leaseTransitions": spec.get("leaseTransitions", 0) + 1}
            try:
                self._replace(spec | own)
            except client.ApiException as error:
                if error.status != 409:
                    raise
                self._lease = None
                self._read()
                if self.holder == self._identity:
                    raise  # another client changed it, and it is still ours: try again
                return False
        self._good_until, self._trouble = started + DEADLINE, ""
        return True

    def _read(self) -> None:
        try:
            found = _parsed(self._api.read_namespaced_lease(CONTROLLER, self._namespace, **_RAW))
        except client.ApiException as error:
            if error.status != 404:
                raise
            self._lease, self.holder = None, ""
            return
        if self._lease is None or found["metadata"]["resourceVersion"] != self._lease["metadata"]["resourceVersion"]:
            self._changed = _now()
        self._lease = found
        found["spec"] = found.get("spec") or {}
        self.holder = found["spec"].get("holderIdentity") or ""

    def _create(self, spec: dict[str, Any]) -> None:
        body: Any = {"metadata": {"name": CONTROLLER, "namespace": self._namespace}, "spec": spec}
        self._store(self._api.create_namespaced_lease(self._namespace, body, **_RAW))

    def _replace(self, spec: dict[str, Any]) -> None:
        assert self._lease  # noqa: S101 - read or written before
        body: Any = {"metadata": self._lease["metadata"], "spec": spec}
        self._store(self._api.replace_namespaced_lease(CONTROLLER, self._namespace, body, **_RAW))

    def _store(self, response: Any) -> None:
        self._lease, self._changed = _parsed(response), _now()
        self.holder = self._lease["spec"].get("holderIdentity") or ""

    def _is_ours(self, lease: dict[str, Any]) -> bool:
        return bool(lease["spec"].get("holderIdentity") == self._identity)


def _now() -> float:
    """Return seconds of a clock that includes suspension of the machine: another controller may hold the lease by then."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _parsed(response: Any) -> dict[str, Any]:
    with response:
        parsed: dict[str, Any] = json.loads(response.data)
        return parsed


def _describe(error: Exception) -> str:
    return f"{error.status} {error.reason}" if isinstance(error, client.ApiException) else str(error)
