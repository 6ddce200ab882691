"""Reads everything that `install-cni status` needs, once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from installer.status.access import Listed, sources, sources_in
from installer.status.istio_agent import own_daemonset
from installer.status.model import Answers, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from installer.status.access import Access, Source
    from installer.status.model import Object


def read_answers(access: Access, namespace: str | None) -> Answers:
    """Read everything once.

    Without the DaemonSet's namespace all are searched.

    Raises:
        UnreachableError: if the API server cannot be reached.
    """

    def listed(lists: Mapping[str, Source]) -> dict[str, Any]:
        answers = {name: access.listed(source) for name, source in lists.items()}
        return {name: each.objects if isinstance(each, Listed) else each for name, each in answers.items()}

    found = listed(sources(namespace))
    own = namespace or namespace_of(found["daemonsets"])
    found |= listed(sources_in(own)) if own else without_namespace(found["daemonsets"])
    return Answers(**found, namespace=namespace)


def namespace_of(daemonsets: Sequence[Object] | Unavailable) -> str | None:
    """Return the namespace of our DaemonSet; None if there is none."""
    daemonset = own_daemonset(daemonsets)
    return str(daemonset["metadata"]["namespace"]) if daemonset else None


def without_namespace(daemonsets: Sequence[Object] | Unavailable) -> dict[str, Unavailable]:
    """Make the answers for an unknown namespace: each unavailable for the same reason as the DaemonSet."""
    if not isinstance(daemonsets, Unavailable):
        return {}
    lists = sources_in("default")
    return {name: Unavailable(each.resource, daemonsets.cause, daemonsets.message) for name, each in lists.items()}
