"""Which agent takes this one's place on its node, as the pods of its DaemonSet tell (D7).

A DaemonSet of the same name may have become that of Istio's own agent, whose pod then runs beside this agent's for a while: a
DaemonSet that was deleted and made anew does not wait for the pods of the one before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from installer.kube.client import METADATA, PODS_PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from installer.config.value_types import DaemonSet
    from installer.kube.client import ApiClient


class Whose(NamedTuple):
    """The requesting agent: its DaemonSet, its node, and its pod's uid, or else its name; empty: unknown.

    `by_rights`: Istio's own chart runs it, whose role does not allow to read the DaemonSet.
    """

    daemonset: DaemonSet
    node_name: str
    pod_uid: str = ""
    by_rights: bool = False
    pod_name: str = ""


class UnclearError(Exception):
    """An answer that proves nothing: the message says what was seen and what was expected."""


async def why_to_give_way(api: ApiClient, whose: Whose) -> str:
    """Return which pod has taken the place of this agent's; empty if none has, or if it does not know its own pod.

    Raises:
        ApiError: if the API server does not tell.
        UnclearError: if it does not know this agent's pod, or these are no pods.
    """
    if not (whose.pod_uid or whose.pod_name):
        return ""
    pods = await pods_beside(api, whose)
    try:
        name = _successor(pods, whose)
    except (TypeError, AttributeError) as error:
        raise UnclearError(f"saw {pods!s:.100}, expected the metadata of pods") from error
    if not name:
        return ""
    return f"Istio's own agent runs here, and pod {whose.daemonset.namespace}/{name} has taken this one's place"


async def pods_beside(api: ApiClient, whose: Whose) -> list[Mapping[str, Any]]:
    """List the pods of its namespace on an agent's node: their metadata.

    Raises:
        ApiError: if they cannot be read.
        UnclearError: if that is no list of pods.
    """
    query = {"fieldSelector": f"spec.nodeName={whose.node_name}"}
    listed: Any = await api.get(f"/api/v1/namespaces/{whose.daemonset.namespace}/pods", query, METADATA, PODS_PATIENCE)
    try:
        found: list[Mapping[str, Any]] = [{**item["metadata"]} for item in listed["items"] or ()]
    except (LookupError, TypeError) as error:
        raise UnclearError(f"saw {listed!s:.100}, expected a list of pods") from error
    return found


def own_pod(pods: Iterable[Mapping[str, Any]], whose: Whose) -> Mapping[str, Any]:
    """Find the pod that an agent runs in.

    Raises:
        UnclearError: if it is not among these.
    """
    key, value = ("uid", whose.pod_uid) if whose.pod_uid else ("name", whose.pod_name)
    for each in pods:
        if each.get(key) == value:
            return each
    seen = f"the API server knows no pod {value} on {whose.node_name} in namespace {whose.daemonset.namespace}"
    raise UnclearError(f"{seen}, expected the one that this agent runs in")


def _successor(pods: Iterable[Mapping[str, Any]], whose: Whose) -> str:
    """Name the pod of the DaemonSet that stays while an agent's own is deleted, or that is younger; empty if there is none."""
    own = own_pod(pods, whose)
    for each in pods:
        stays = each is not own and each.get("deletionTimestamp") is None and _is_of(each, whose.daemonset)
        if stays and (own.get("deletionTimestamp") or _made(own) < _made(each)):
            return str(each.get("name"))
    return ""


def _is_of(pod: Mapping[str, Any], daemonset: DaemonSet) -> bool:
    owners = pod.get("ownerReferences") or ()
    return any((each.get("kind"), each.get("name")) == ("DaemonSet", daemonset.name) for each in owners)


def _made(pod: Mapping[str, Any]) -> str:
    return str(pod.get("creationTimestamp"))  # in whole seconds, which compare as they are written
