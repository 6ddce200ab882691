"""What an agent does with its installation when it stops, and how long that may take (D7).

Stopping is not uninstalling: a node whose agent is replaced keeps everything. Uninstalling needs proof (F36): the API server
itself answers that the requested DaemonSet does not exist, is being deleted, or does not select this
Node; or that another pod of it is here to stay, while Istio's own agent runs on this node, which does not notice what it finds
in its place. A refusal, an error or the answer of a proxy in front of the API server proves nothing: everything stays, pods
that may be in the mesh wait for the next agent (D9), and the log says how to clean the node.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.agent.succession import UnclearError, own_pod, pods_beside, why_to_give_way
from installer.fleet import selection
from installer.kube.api_error import ApiError
from installer.kube.names import PARKED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from installer.agent.succession import Whose
    from installer.fleet.selection import Selection
    from installer.kube.client import ApiClient

# Seconds from SIGTERM to the end of the process, of the 30 that the kubelet grants; and the deadline of each step.
# The next step gets what a step leaves of its time.
STOP_WITHIN = 25.0
ASKED, TAKEN_OUT, REPORTED, DRAINED = (STOP_WITHIN * share for share in (0.4, 0.7, 0.8, 0.9))

TRIES, BETWEEN = 4, 1.0  # requests, seconds: an API server that has just started refuses what it grants soon after

_log = logging.getLogger(__name__)


class _Answer(NamedTuple):
    """Why to uninstall, empty if not to; and whether that is final, so that no second request is needed."""

    why: str = ""
    final: bool = False


async def _ask_about_rights(api: ApiClient, whose: Whose, *, beside_istios: bool) -> str:
    """Return why Istio's own chart is uninstalled: its role and service account are gone, with which the agent read its Node.

    They may be there again, as another release of that chart has made them; then pods tell.

    It takes refusals only, for as long as the requests last: an API server that has just started refuses for less. An agent
    that is replaced keeps its rights, and goes on serving meanwhile. A wrong conclusion costs little: Istio's own agent
    always uninstalls, and the next agent redirects the pods that wait for it in istio-validation.
    """
    for attempt in range(TRIES):
        await asyncio.sleep(BETWEEN if attempt else 0)
        try:
            await api.get(f"/api/v1/nodes/{whose.node_name}")
        except ApiError as error:
            if not error.is_refusal:
                raise
        else:
            if beside_istios and (why := await why_to_give_way(api, whose)):
                return why
            raise UnclearError("its role in Istio's own chart is there, which does not allow to read the DaemonSet")
    return "the API server refuses what the role of Istio's own chart allows: the chart is uninstalled"


async def why_to_uninstall(
    api: ApiClient, whose: Whose, until: float, remedy: str = "", *, beside_istios: bool = False
) -> str:
    """Ask whether the DaemonSet still wants an agent on this node.

    Gives up at the event loop's time `until`. `remedy` says, for the log, how to clean the node by hand; `beside_istios`
    whether Istio's own agent runs on it.

    Returns:
        Why it does not; empty if it does, or if that is unclear. It asks twice, except about a deletion, which is final.
    """
    unclear, before = "the API server did not answer in time", ""
    with suppress(TimeoutError):
        async with asyncio.timeout_at(until):
            for attempt in range(TRIES):
                await asyncio.sleep(BETWEEN if attempt else 0)
                try:
                    answer = await _ask_once(api, whose, beside_istios=beside_istios)
                except (ApiError, UnclearError) as error:
                    unclear, before = str(error), ""
                    continue
                if not answer.why or answer.final or before:
                    return answer.why
                before = answer.why
                unclear = f"{answer.why}, expected the same answer twice in a row"
    message = "cannot tell whether the DaemonSet still targets this node; leaving the plugin installed"
    _log.warning(message, extra={"reason": unclear, "remedy": remedy})
    return ""


async def _ask_once(api: ApiClient, whose: Whose, *, beside_istios: bool) -> _Answer:
    if whose.by_rights:
        return _Answer(await _ask_about_rights(api, whose, beside_istios=beside_istios), final=True)
    answer = await _ask_about_daemonset(api, whose)
    if answer.why:
        await _require_own_cluster(api, whose)
    elif beside_istios:
        answer = _Answer(await why_to_give_way(api, whose), final=True)
    return answer


async def _ask_about_daemonset(api: ApiClient, whose: Whose) -> _Answer:
    namespace, name = whose.daemonset
    named = f"DaemonSet {namespace}/{name}"
    found = await api.get(f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}")
    if found is None:
        return _Answer(f"{named} is gone")
    metadata = _metadata(found, "DaemonSet", name)
    if metadata.get("namespace") != namespace:
        raise UnclearError(f"saw a DaemonSet of namespace {metadata.get('namespace')!r:.100}, expected {namespace}")
    going = metadata.get("deletionTimestamp")
    if isinstance(going, str) and going:
        return _Answer(f"{named} is being deleted", final=True)
    if going is not None:
        raise UnclearError(f"{named}: saw deletionTimestamp {going!r:.100}, expected a time")
    try:
        selected = selection.read(found["spec"]["template"]["spec"])
    except (LookupError, TypeError, AttributeError) as error:
        raise UnclearError(f"{named}: saw no pod template that says for which nodes it is, expected one") from error
    node = await api.get(f"/api/v1/nodes/{whose.node_name}")
    labels = _metadata(node, "Node", whose.node_name).get("labels")
    if not isinstance(labels, dict) or not labels:
        raise UnclearError(f"Node {whose.node_name}: saw no labels, expected at least those that its kubelet sets")
    return _judge_selection(selected, named, whose.node_name, labels)


def _judge_selection(selected: Selection, named: str, node_name: str, labels: Mapping[str, str]) -> _Answer:
    """Judge by the node selectors. Taints do not count: a temporary taint uninstalls nothing."""
    missing = selected.lacks(labels)
    if missing == PARKED:
        return _Answer("its IstioControlPlane was deleted; apply one with spec.cni.enabled true to have it again")
    if missing:
        listed = ", ".join(f"{key}={value}" for key, value in missing.items())
        return _Answer(f"{named} does not select this node, which lacks {listed}")
    if selected.is_for(node_name, labels):
        return _Answer()
    if selected.unclear:
        raise UnclearError(
            f"{named}: saw in its node affinity {selected.unclear:.200}, expected what this release knows"
        )
    return _Answer(f"{named} does not select this node, by its node affinity or nodeName")


async def _require_own_cluster(api: ApiClient, whose: Whose) -> None:
    """Check that the API server knows this agent: one whose etcd is empty or restored reports everything as missing.

    Raises:
        UnclearError: if it does not know the agent's pod; or the Node, if the pod's uid is unknown.
    """
    if not whose.pod_uid:
        node = await api.get(f"/api/v1/nodes/{whose.node_name}")
        _metadata(node, "Node", whose.node_name)
        return
    own_pod(await pods_beside(api, whose), whose)


def _metadata(found: Any, kind: str, name: str) -> Mapping[str, Any]:
    if found is None:
        raise UnclearError(f"the API server knows no {kind} {name}")
    metadata = found.get("metadata") if isinstance(found, dict) and found.get("kind") == kind else None
    if not isinstance(metadata, dict) or metadata.get("name") != name:
        raise UnclearError(f"saw {found!s:.100}, expected {kind} {name}")
    return metadata
