"""The answers of the API server, and the status of the cluster that is made from them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from installer.config.values import Problem
    from installer.fleet.node_health import State

    Object = Mapping[str, Any]  # of the API, as parsed from JSON


class Cause(Enum):
    """Why an answer is unavailable."""

    FORBIDDEN = "Forbidden"
    NO_DEFINITION = "NoDefinition"  # the API server does not know the resource: its CRD is missing
    FAILED = "Failed"


@dataclass(frozen=True)
class Unavailable:
    """An answer that is unavailable.

    Attributes:
        resource: `<plural>` or `<plural>.<group>`, as kubectl takes it.
        cause: for programs.
        message: the API server's.
        namespace: the namespace; None: the whole cluster.
    """

    resource: str
    cause: Cause
    message: str
    namespace: str | None = None


@dataclass(frozen=True)
class Answers:
    """The answers of the API server.

    Attributes:
        reports: the IstioCNINodes.
        daemonsets: those named `istio-cni-node`, like Istio's own agent.
        pods: the agents', in the namespace of their DaemonSet.
        controllers: the Deployments named `istio-cni-controller` there.
        namespace: the only namespace searched for a DaemonSet; None: all.
    """

    planes: Sequence[Object] | Unavailable = ()
    reports: Sequence[Object] | Unavailable = ()
    nodes: Sequence[Object] | Unavailable = ()
    daemonsets: Sequence[Object] | Unavailable = ()
    pods: Sequence[Object] | Unavailable = ()
    controllers: Sequence[Object] | Unavailable = ()
    namespace: str | None = None


class Health(Enum):
    """The health of the cluster, in the terms of Argo CD."""

    HEALTHY = "Healthy"
    PROGRESSING = "Progressing"  # a change has not reached all nodes yet, and nothing is wrong
    DEGRADED = "Degraded"
    UNKNOWN = "Unknown"  # no fault is known, but not everything could be read

    @property
    def exit_status(self) -> int:
        """The exit status of the command."""
        return {Health.HEALTHY: 0, Health.UNKNOWN: 2}.get(self, 1)


class Severity(Enum):
    """How severe a finding is."""

    ERROR = "Error"  # something is wrong
    UNKNOWN = "Unknown"  # something could not be read
    INFO = "Info"  # worth knowing


@dataclass(frozen=True)
class Finding:
    """A finding about the cluster, and what to do."""

    severity: Severity
    message: str
    remedy: str = ""


@dataclass(frozen=True)
class ControlPlane:
    """An IstioControlPlane.

    Attributes:
        active: whether its settings apply to the cluster: it is the oldest.
        enabled: whether it enables the plugin; None: it is invalid.
        status: the controller's: NONE, UPDATING, HEALTHY, ERROR or RECONCILING; empty: none yet.
        message: the controller's.
        degraded: the reason of its Degraded condition; empty: it is not degraded.
        problems: its invalid fields.
        conflicts: the values in which it differs from the active one.
        generation: of its settings.
        observed: the generation of the controller's status; 0 if there is none.
        changed: when its settings were last changed, or it was deleted; None: unknown.
    """

    namespace: str
    name: str
    uid: str
    active: bool
    enabled: bool | None
    terminating: bool
    status: str
    message: str
    degraded: str
    problems: tuple[Problem, ...]
    conflicts: tuple[str, ...]
    generation: int
    observed: int
    created: datetime | None
    changed: datetime | None = None

    @property
    def title(self) -> str:
        """NAMESPACE/NAME."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class AgentDaemonSet:
    """The DaemonSet of the node agents.

    Attributes:
        parked: whether the controller has removed its pods from all nodes, after an uninstall.
        desired, ready, updated: numbers of pods, by its own status.
        rolling: whether, by that status, a change has not reached all pods.
        held_up: whether outdated pods wait until others are ready.
        unavailable, most_unavailable: numbers of nodes without a ready pod: now, and at most while pods are replaced.
    """

    namespace: str
    image: str
    parked: bool
    terminating: bool
    desired: int
    ready: int
    updated: int
    rolling: bool
    held_up: bool
    unavailable: int
    most_unavailable: int
    created: datetime | None


@dataclass(frozen=True)
class Repairs:
    """The agent's repairs since it started."""

    count: int
    last: datetime | None = None
    file: str = ""


@dataclass(frozen=True)
class NodeWarning:
    """A fault of a node that nevertheless redirects pods, and its remedy: its agent's message."""

    reason: str
    message: str


@dataclass(frozen=True)
class NodeStatus:
    """The status of a node.

    Attributes:
        reason: why, for programs; empty: it is healthy.
        message: why, for people, and often what to do.
        remedy: a command that fixes it or shows more.
        since: the start of this state, if its agent's condition has it; else None.
        version: the agent's release.
        backend: the backend that writes the rules.
        missing_features: the features that the backend lacks there.
        directory, file, form: the configuration that the plugin was added to.
        meshes: plugins of other meshes in the same file.
        repairs: None if not reported.
        redirected: running pods whose rules the agent wrote; None if not reported.
        settings: NAMESPACE/NAME@GENERATION of the control plane whose settings are in force; empty for the chart's.
        pod: the agent's.
        warning: a fault although pods are redirected; None if there is none, or they are not.
        was_unready: whether it was unready before its agent's pod existed, or that pod does not terminate: a rollout passes it.
    """

    name: str
    state: State
    reason: str = ""
    message: str = ""
    remedy: str = ""
    since: datetime | None = None
    version: str = ""
    backend: str = ""
    missing_features: tuple[str, ...] = ()
    directory: str = ""
    file: str = ""
    form: str = ""
    meshes: tuple[str, ...] = ()
    repairs: Repairs | None = None
    redirected: int | None = None
    settings: str = ""
    pod: str = ""
    warning: NodeWarning | None = None
    was_unready: bool = False


@dataclass(frozen=True)
class Progress:
    """The progress of a change: `kind` is Rollout or Uninstall, `done` and `total` are nodes."""

    kind: str
    done: int
    total: int


@dataclass(frozen=True)
class ClusterStatus:
    """The status of the cluster.

    Attributes:
        summary: the same in a sentence.
        out: whether the plugin is being removed from all nodes, or is removed.
        progress: that of a change to the nodes; None: there is none.
        planes: the active one first, then by age.
        agents: the DaemonSet; None: missing or unreadable.
        findings: about the cluster, errors first.
        nodes: the unhealthy first, by state, then by name.
    """

    health: Health
    summary: str
    out: bool = False
    progress: Progress | None = None
    planes: tuple[ControlPlane, ...] = ()
    agents: AgentDaemonSet | None = None
    findings: tuple[Finding, ...] = ()
    nodes: tuple[NodeStatus, ...] = ()

    @property
    def unhealthy(self) -> tuple[NodeStatus, ...]:
        """The unhealthy nodes."""
        return tuple(each for each in self.nodes if not each.state.is_healthy)

    @property
    def healthy(self) -> tuple[NodeStatus, ...]:
        """The healthy nodes."""
        return tuple(each for each in self.nodes if each.state.is_healthy)
