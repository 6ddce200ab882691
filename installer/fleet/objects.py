"""Reads the fields of Nodes, IstioCNINodes and agents' pods that controller and `status` need; there may be thousands. Pure.

Any object that the API server can hold is accepted; missing fields read as unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.kube.names import CONTROLLER
from installer.kube.times import parse_rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CONTAINER = "install-cni"
_MUTE = ("", "ContainerCreating", "Pending", "PodInitializing")
_RUNS = "NotReady"  # the reason for a pod whose agent runs: the agent's own report says why
TEMPLATE_GENERATION = "pod-template-generation"  # a label that the DaemonSet controller puts on each pod


@dataclass(frozen=True)
class Node:
    """A Node; `version` is its resourceVersion, a precondition of changes.

    A new version alone is no change: each kubelet writes its Node's status every few minutes.
    """

    name: str
    uid: str
    created: datetime
    version: str = field(compare=False)
    labels: Mapping[str, str]
    taints: tuple[Mapping[str, Any], ...]
    ready: bool = True  # unless Kubernetes reports otherwise
    changed: datetime | None = None  # when `ready` last changed; None: unknown


class Settings(NamedTuple):
    """The control plane whose settings are in force on a node."""

    uid: str
    generation: int


@dataclass(frozen=True)
class Report:
    """The status of an IstioCNINode.

    Attributes:
        state: Installed, NotInstalled or Removed; empty: no agent has reported.
        version: the agent's release; empty: unknown.
        ready: whether the node redirects pods; None: unknown.
        reason: why, for programs.
        message: why, and what to do, for people.
        since: when `ready` last changed; None: unknown.
        settings: the control plane whose settings are in force; None: the chart's.
        written: when it was last changed; None: unknown.
        by_controller: whether the controller wrote reason and message, in place of an agent that does not run.
    """

    node: str
    state: str
    version: str
    ready: bool | None
    reason: str
    message: str
    since: datetime | None
    settings: Settings | None
    written: datetime | None = None
    resource_version: str = field(default="", compare=False)
    by_controller: bool = False


@dataclass(frozen=True)
class AgentPod:
    """A pod of the agents' DaemonSet.

    Attributes:
        node: the node that it is bound to; empty: none yet.
        ready: whether it is Ready.
        terminating: whether it is being deleted.
        template: the generation of its pod template; empty: unknown.
        reason: why it is not ready, for programs; empty: it is, or the reason is unknown.
        message: the same for people.
        started: whether the agent's process has ever run in it; by node, in any pod of that node.
        ends: the deadline of its termination; None: it is not terminating.
        changed: when `ready` last changed; None: unknown.
    """

    name: str
    uid: str
    node: str
    created: datetime
    ready: bool
    terminating: bool
    template: str
    reason: str
    message: str
    started: bool = True
    ends: datetime | None = None
    changed: datetime | None = None

    @property
    def is_mute(self) -> bool:
        """Whether the pod's own status does not say why its agent does not run."""
        return self.reason in _MUTE

    @property
    def runs(self) -> bool:
        """Whether the agent's process runs, and so reports for itself."""
        return self.ready or self.reason == _RUNS


def read_node(manifest: Mapping[str, Any]) -> Node:
    """Read a Node."""
    metadata, ready = manifest["metadata"], find_condition(manifest.get("status") or {}, "Ready")
    return Node(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        created=_created(metadata),
        version=metadata.get("resourceVersion", ""),
        labels=dict(metadata.get("labels") or {}),
        taints=tuple((manifest.get("spec") or {}).get("taints") or ()),
        ready=ready.get("status", "True") == "True",
        changed=parse_rfc3339(ready.get("lastTransitionTime")),
    )


def read_report(manifest: Mapping[str, Any]) -> Report:
    """Read an IstioCNINode."""
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    ready, state = find_condition(status, "Ready"), status.get("state") or ""
    settings, entries = status.get("controlPlane"), metadata.get("managedFields") or ()
    return Report(
        node=metadata["name"],
        state=state,
        version=status.get("version") or "",
        ready={"True": True, "False": False}.get(ready.get("status", "")),
        reason=ready.get("reason") or "",
        message=ready.get("message") or "",
        since=parse_rfc3339(ready.get("lastTransitionTime")),
        settings=Settings(settings.get("uid", ""), settings.get("generation", 0)) if settings else None,
        written=max(filter(None, (parse_rfc3339(each.get("time")) for each in entries)), default=None),
        resource_version=metadata.get("resourceVersion", ""),
        by_controller=not state or any(map(_is_controllers, entries)),
    )


def read_agent_pod(manifest: Mapping[str, Any]) -> AgentPod:
    """Read a pod of the agents' DaemonSet."""
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    of_ready = find_condition(status, "Ready")
    ready = of_ready.get("status") == "True"
    reason, message = ("", "") if ready else _trouble(status)
    return AgentPod(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        node=(manifest.get("spec") or {}).get("nodeName") or "",
        created=_created(metadata),
        ready=ready,
        terminating="deletionTimestamp" in metadata,
        template=(metadata.get("labels") or {}).get(TEMPLATE_GENERATION, ""),
        reason=reason,
        message=message,
        started=ready or any(map(_has_started, status.get("containerStatuses") or ())),
        ends=parse_rfc3339(metadata.get("deletionTimestamp")),
        changed=parse_rfc3339(of_ready.get("lastTransitionTime")),
    )


def by_node(pods: Iterable[AgentPod]) -> dict[str, AgentPod]:
    """Return one pod per node: during a replacement, the one that is not terminating, or else the youngest.

    It counts as started if another one has: that agent may have installed something, and may not have reported.
    """
    ranked = sorted(pods, key=lambda each: (not each.terminating, each.created))
    started = {each.node for each in ranked if each.started}
    return {
        each.node: each if each.started or each.node not in started else replace(each, started=True)
        for each in ranked
        if each.node
    }


def find_condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """Find a condition of an object's status by its type; empty if there is none."""
    return next((each for each in status.get("conditions") or () if each.get("type") == kind), {})


def annotation(manifest: Mapping[str, Any], key: str) -> str | None:
    """Return an object's annotation; None if it has none of this key."""
    found: str | None = (manifest["metadata"].get("annotations") or {}).get(key)
    return found


def component_status(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of an IstioControlPlane's status that the controller writes about the component; empty: none yet."""
    found: Mapping[str, Any] = (status.get("status") or {}).get("cni") or {}
    return found


def pod_spec(daemonset: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the spec of a DaemonSet's pods; empty if it has none."""
    found: Mapping[str, Any] = ((daemonset.get("spec") or {}).get("template") or {}).get("spec") or {}
    return found


def spec_changed(manifest: Mapping[str, Any]) -> datetime | None:
    """Return when an object was deleted, or else when its spec last changed by managedFields; None: unknown."""
    metadata = manifest["metadata"]
    times = (
        parse_rfc3339(each.get("time")) for each in metadata.get("managedFields") or () if not each.get("subresource")
    )
    return parse_rfc3339(metadata.get("deletionTimestamp")) or max(filter(None, times), default=None)


def _created(metadata: Mapping[str, Any]) -> datetime:
    return parse_rfc3339(metadata.get("creationTimestamp")) or datetime.min.replace(tzinfo=UTC)


def _is_controllers(entry: Mapping[str, Any]) -> bool:
    """Return whether an entry of managedFields is the one with which the controller owns what the condition Ready says.

    Once the agent says otherwise, the controller still shares the condition's type.
    """
    owned = entry.get("fieldsV1") or {}
    for step in ("f:status", "f:conditions", 'k:{"type":"Ready"}'):
        owned = owned.get(step) or {}
    return entry.get("manager") == CONTROLLER and "f:message" in owned


def _has_started(container: Mapping[str, Any]) -> bool:
    states = {*(container.get("state") or {}), *(container.get("lastState") or {})}
    return container.get("name") == CONTAINER and bool(states & {"running", "terminated"})


def _trouble(status: Mapping[str, Any]) -> tuple[str, str]:
    """Find why a pod does not run: its container is waiting or terminated, or it is unscheduled or evicted."""
    for each in status.get("containerStatuses") or ():
        if each.get("name") != CONTAINER:
            continue
        state = each.get("state") or {}
        last = (each.get("lastState") or {}).get("terminated") or {}
        for found in (state.get("waiting"), state.get("terminated")):
            if found:
                ended = f"; it ended with {last.get('exitCode')} before ({last.get('reason')})" if last else ""
                return found.get("reason", "Unknown"), str(found.get("message", "")) + ended
        if "running" in state:
            return _RUNS, "the agent is running and not ready yet"
    scheduled = find_condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        return scheduled.get("reason", "Unschedulable"), scheduled.get("message", "")
    return status.get("reason") or status.get("phase", ""), status.get("message", "")
