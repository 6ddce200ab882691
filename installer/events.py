"""Events as a node agent writes them (events.k8s.io/v1)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from installer.apiserver import FIELD_MANAGER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from installer.apiserver import ApiServer

LONGEST_NOTE = 1024  # characters that the API takes


async def tell(
    api: ApiServer, node_name: str, regarding: Mapping[str, str], reason: str, note: str, *, warning: bool
) -> None:
    """Write an Event.

    Args:
        api: where.
        node_name: of the agent that says it.
        regarding: the object: apiVersion, kind, name, uid and, where it has one, namespace.
        reason: in a word.
        note: for people.
        warning: whether somebody should look at it.

    Raises:
        ApiError: if it was not done.
    """
    namespace = regarding.get("namespace", "default")
    event: dict[str, Any] = {
        "metadata": {"generateName": "istio-cni-node-", "namespace": namespace},
        "regarding": dict(regarding),
        "type": "Warning" if warning else "Normal",
        "reason": reason,
        "action": "Reconcile",
        "note": note[:LONGEST_NOTE],
        "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": FIELD_MANAGER,
        "reportingInstance": node_name,
    }
    await api.create(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", event)
