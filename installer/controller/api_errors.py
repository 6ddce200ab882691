"""What it means that the API server did not do what it was asked for. Pure."""

from __future__ import annotations

import json
from contextlib import suppress

from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

NO_SUCCESS = (ApiException, HTTPError, OSError)


def is_passing(error: ApiException) -> bool:
    """Whether the same may succeed if it is asked again: what is refused for good holds up nothing else."""
    return error.status in (None, 0, 429, 502, 503, 504)


def explain(error: Exception) -> str:
    """Say in a line what the API server, or the way to it, has said."""
    if isinstance(error, ApiException):
        said = str(error.body or "")
        with suppress(ValueError, LookupError, TypeError):
            said = json.loads(said)["message"]
        return f"{error.status} {error.reason}: {' '.join(said.split())[:500]}"
    return f"{type(error).__name__}: {error}"
