"""The credentials that kopf works with: read anew now and then, as the kubelet replaces a projected token (F4)."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from installer.kube.client import credentials

if TYPE_CHECKING:
    from pathlib import Path

    from installer.kube.kopf import kopf

FRESH = timedelta(minutes=1)  # then they are read again, before the next request


class Login:
    """The credentials as they are now.

    While they are the same they are the same object to kopf, which refuses what the API server has refused: then it
    ends, instead of trying the same at full speed.
    """

    def __init__(self, kubeconfig: Path | None) -> None:
        """Prepare; kubeconfig is as `credentials` takes it."""
        self._kubeconfig = kubeconfig
        self._last: kopf.ConnectionInfo | None = None

    def __call__(self) -> kopf.ConnectionInfo:
        """Read them.

        Raises:
            CredentialsError: if there are none.
        """
        now, fresh = datetime.now(UTC), credentials(self._kubeconfig)
        last = self._last
        same = last and dataclasses.replace(last, expiration=None) == fresh
        if not last or not last.expiration or not same or last.expiration <= now:
            last = self._last = dataclasses.replace(fresh, expiration=now + FRESH)
        return last
