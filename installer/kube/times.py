"""Times as the API server has them: RFC 3339, UTC, whole seconds. Pure."""

from __future__ import annotations

from datetime import datetime


def rfc3339(when: datetime) -> str:
    """Write a time that is in UTC."""
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def read(text: str | None) -> datetime | None:
    """Read a time; None for none."""
    return datetime.fromisoformat(text) if text else None
