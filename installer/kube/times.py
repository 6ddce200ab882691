"""Times as the API server has them: RFC 3339, UTC, whole seconds. Pure."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(when: datetime) -> str:
    """Write a time that is in UTC."""
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def read(text: object) -> datetime | None:
    """Read a time; None for what is none."""
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
