"""What the controller keeps of the objects that it watches: little, as there may be thousands. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.kube.times import read

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CONTAINER = "install-cni"
_MUTE = ("", "ContainerCreating", "Pending", "PodInitializing")
_RUNS = "NotReady"  # why the pod of an agent that runs is not ready: the agent knows
TEMPLATE_GENERATION = "pod-template-generation"  # a label that the DaemonSet's controller puts on each pod


@dataclass(frozen=True)
class Node:
    """A Node; `version` is its resourceVersion, for changes that must not be based on something outdated.

    That it is another is no change: each kubelet writes its Node's status every few minutes.
    """

    name: str
    uid: str
    created: datetime
    version: str = field(compare=False)
    labels: Mapping[str, str]
    taints: tuple[Mapping[str, Any], ...]


class Settings(NamedTuple):
    """Whose settings are in force on a node."""

    uid: str
    generation: int


@dataclass(frozen=True)
class Report:
    """What an IstioCNINode says.

    Attributes:
        node: the node's name.
        state: Installed, NotInstalled or Removed; empty: nothing yet.
        version: the agent's release; empty: unknown.
        ready: whether the node redirects pods; None: unknown.
        reason: why, in a word.
        message: why, and what to do.
        since: when `ready` became what it is; None: unknown.
        settings: whose settings are in force; None: the chart's.
        written: when somebody last changed it; None: unknown.
        resource_version: its own.
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


@dataclass(frozen=True)
class AgentPod:
    """A pod of the DaemonSet's.

    Attributes:
        name: its own.
        uid: its own.
        node: where it is; empty: nowhere yet.
        created: when.
        ready: whether it is Ready.
        going: whether it is about to end.
        template: the generation of the DaemonSet's template that it was made of; empty: unknown.
        reason: why it does not run, in a word; empty: it runs, or nobody has said.
        message: the same in a sentence.
        started: whether the agent's process has run in it, ever.
        ends: by when it is to have ended; None: nobody has told it to.
    """

    name: str
    uid: str
    node: str
    created: datetime
    ready: bool
    going: bool
    template: str
    reason: str
    message: str
    started: bool = True
    ends: datetime | None = None

    @property
    def is_mute(self) -> bool:
        """Whether the pod itself does not say why its agent does not run."""
        return self.reason in _MUTE

    @property
    def runs(self) -> bool:
        """Whether the agent's process runs, and can speak for itself."""
        return self.ready or self.reason == _RUNS


def node(manifest: Mapping[str, Any]) -> Node:
    """Read a Node."""
    metadata = manifest["metadata"]
    return Node(
        name=metadata["name"],
        uid=metadata["uid"],
        created=read(metadata.get("creationTimestamp")) or datetime.min.replace(tzinfo=UTC),
        version=metadata.get("resourceVersion", ""),
        labels=dict(metadata.get("labels") or {}),
        taints=tuple((manifest.get("spec") or {}).get("taints") or ()),
    )


def report(manifest: Mapping[str, Any]) -> Report:
    """Read an IstioCNINode."""
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    ready = condition(status.get("conditions") or (), "Ready")
    settings = status.get("controlPlane")
    return Report(
        node=metadata["name"],
        state=status.get("state", ""),
        version=status.get("version", ""),
        ready={"True": True, "False": False}.get(ready.get("status", "")),
        reason=ready.get("reason", ""),
        message=ready.get("message", ""),
        since=read(ready.get("lastTransitionTime")),
        settings=Settings(settings["uid"], settings["generation"]) if settings else None,
        written=max(
            filter(None, (read(each.get("time")) for each in metadata.get("managedFields") or ())), default=None
        ),
        resource_version=metadata.get("resourceVersion", ""),
    )


def agent_pod(manifest: Mapping[str, Any]) -> AgentPod:
    """Read a pod of the DaemonSet's."""
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    ready = condition(status.get("conditions") or (), "Ready").get("status") == "True"
    reason, message = ("", "") if ready else _trouble(status)
    return AgentPod(
        name=metadata["name"],
        uid=metadata["uid"],
        node=(manifest.get("spec") or {}).get("nodeName", ""),
        created=read(metadata.get("creationTimestamp")) or datetime.min.replace(tzinfo=UTC),
        ready=ready,
        going="deletionTimestamp" in metadata,
        template=(metadata.get("labels") or {}).get(TEMPLATE_GENERATION, ""),
        reason=reason,
        message=message,
        started=ready or any(map(_has_started, status.get("containerStatuses") or ())),
        ends=read(metadata.get("deletionTimestamp")),
    )


def condition(conditions: Iterable[Mapping[str, Any]], kind: str) -> Mapping[str, Any]:
    """Find a condition by its type; empty if there is none."""
    return next((each for each in conditions if each.get("type") == kind), {})


def _has_started(container: Mapping[str, Any]) -> bool:
    states = {*(container.get("state") or {}), *(container.get("lastState") or {})}
    return container["name"] == CONTAINER and bool(states & {"running", "terminated"})


def _trouble(status: Mapping[str, Any]) -> tuple[str, str]:
    """Find why a pod does not run: its container waits or has ended, it is nowhere, or it was thrown out."""
    for each in status.get("containerStatuses") or ():
        if each.get("name") != CONTAINER:
            continue
        state = each.get("state") or {}
        last = (each.get("lastState") or {}).get("terminated") or {}
        for found in (state.get("waiting"), state.get("terminated")):
            if found:
                ended = f"; it ended with {last['exitCode']} before ({last.get('reason')})" if last else ""
                return found.get("reason", "Unknown"), str(found.get("message", "")) + ended
        if "running" in state:
            return _RUNS, "the agent runs and is not ready yet"
    scheduled = condition(status.get("conditions") or (), "PodScheduled")
    if scheduled.get("status") == "False":
        return scheduled.get("reason", "Unschedulable"), scheduled.get("message", "")
    return status.get("reason", status.get("phase", "")), status.get("message", "")
