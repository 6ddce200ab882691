"""What is asked of a cluster and what `install-cni status` says of it, as values. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from installer.config.schema import Problem

    Object = Mapping[str, Any]  # of the API, as parsed from JSON


class Why(Enum):
    """Why a question was not answered."""

    FORBIDDEN = "Forbidden"
    NO_DEFINITION = "NoDefinition"  # the API server does not know the resource: its CRD is missing
    FAILED = "Failed"


@dataclass(frozen=True)
class Unasked:
    """An answer that could not be had.

    Attributes:
        resource: `<plural>` or `<plural>.<group>`, as kubectl takes it.
        why: in one word.
        message: what the API server said.
        namespace: the one that was asked for; None for the whole cluster.
    """

    resource: str
    why: Why
    message: str
    namespace: str | None = None


@dataclass(frozen=True)
class Answers:
    """What the API server answered.

    Nodes and pods have `cells` beside their metadata: the columns that the API server prints for `kubectl get`, by name.

    Attributes:
        planes: the IstioControlPlanes.
        reports: the IstioCNINodes.
        nodes: the nodes; cell `Status`.
        daemonsets: those of the name `istio-cni-node`, which Istio's own agent has too.
        pods: the agents', in the namespace of their DaemonSet; cells `Ready`, `Status`, `Restarts` and `Node`.
        controllers: the Deployments of the name `istio-cni-controller` there.
        namespace: the only one in which a DaemonSet was looked for; None: in all.
    """

    planes: Sequence[Object] | Unasked = ()
    reports: Sequence[Object] | Unasked = ()
    nodes: Sequence[Object] | Unasked = ()
    daemonsets: Sequence[Object] | Unasked = ()
    pods: Sequence[Object] | Unasked = ()
    controllers: Sequence[Object] | Unasked = ()
    namespace: str | None = None


class Verdict(Enum):
    """How it is on the whole; the value is the exit status."""

    WELL = 0
    NOT_WELL = 1
    UNKNOWN = 2

    @property
    def title(self) -> str:
        """The name in the API's spelling."""
        return "".join(word.title() for word in self.name.split("_"))


class State(Enum):
    """How a node is. READY and REMOVED are well; the others may become so by themselves, but for FAILED and SILENT."""

    FAILED = "Failed"  # its agent says that it cannot redirect pods, or cannot run
    SILENT = "Silent"  # no agent runs there, or none has reported
    LEAVING = "Leaving"  # the plugin is to be taken out, and is not yet
    UPDATING = "Updating"  # a change is on its way to it
    READY = "Ready"
    REMOVED = "Removed"  # the plugin is out of it, as asked

    @property
    def is_well(self) -> bool:
        """Whether a node in this state is as it should be."""
        return self in (State.READY, State.REMOVED)


class Weight(Enum):
    """What a finding counts for."""

    WRONG = "Wrong"  # something is not well
    UNASKED = "Unasked"  # something could not be asked
    NOTE = "Note"  # worth knowing


@dataclass(frozen=True)
class Finding:
    """Something about the cluster: what it is, and what to do."""

    weight: Weight
    what: str
    remedy: str = ""


@dataclass(frozen=True)
class Plane:
    """An IstioControlPlane.

    Attributes:
        namespace: its namespace.
        name: its name.
        uid: its uid.
        counts: whether its settings are those of the cluster: it is the oldest.
        enabled: whether it wants a plugin; None if it cannot be read.
        leaving: whether it is being deleted.
        status: the controller's word: NONE, UPDATING, HEALTHY, ERROR or RECONCILING; empty if it has not said one.
        message: the controller's sentence.
        degraded: the controller's reason, in one word; empty if it sees nothing wrong.
        problems: what is wrong with its fields.
        contradicts: the values in which it differs from the one that counts.
        generation: of its settings.
        observed: the generation that the controller's status is about; 0 if there is none.
        created: when.
    """

    namespace: str
    name: str
    uid: str
    counts: bool
    enabled: bool | None
    leaving: bool
    status: str
    message: str
    degraded: str
    problems: tuple[Problem, ...]
    contradicts: tuple[str, ...]
    generation: int
    observed: int
    created: datetime | None

    @property
    def title(self) -> str:
        """NAMESPACE/NAME."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Agents:
    """The DaemonSet of the node agents.

    Attributes:
        namespace: its namespace.
        image: what it runs.
        parked: whether the controller has taken its pods off all nodes, after an uninstall.
        leaving: whether it is being deleted.
        wanted, ready, updated: numbers of pods, by its own status.
        rolling: whether that status says that a change has not reached all pods.
        held_up: whether pods wait to be replaced until others are ready.
        unavailable, most_unavailable: numbers of nodes without a ready pod: now, and at most while pods are replaced.
        created: when.
    """

    namespace: str
    image: str
    parked: bool
    leaving: bool
    wanted: int
    ready: int
    updated: int
    rolling: bool
    held_up: bool
    unavailable: int
    most_unavailable: int
    created: datetime | None


@dataclass(frozen=True)
class Repairs:
    """What the agent had to put back since it started."""

    count: int
    last: datetime | None = None
    file: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Flaw:
    """What is wrong on a node though pods are redirected there, and what to do: its agent's own words."""

    reason: str
    message: str


@dataclass(frozen=True)
class Node:
    """A node.

    Attributes:
        name: its name.
        state: how it is.
        reason: why, in one word; empty if it is well.
        message: why, in a sentence, and often what to do: the agent's own words.
        remedy: what to do, where the message does not say.
        since: since when it is in this state, where that follows from its agent's condition; else None.
        version: the agent's release.
        backend: what writes the rules.
        lacks: the features that the backend lacks there.
        directory, file, form: the configuration that the plugin was added to.
        meshes: plugins of other meshes in the same file.
        repairs: None if no agent has said.
        redirected: running pods whose rules the agent wrote; None if no agent has said.
        settings: NAMESPACE/NAME@GENERATION of the control plane whose settings are in force; empty for the chart's.
        pod: the agent's.
        flaw: what is wrong though pods are redirected; None if nothing is, or they are not.
        was_unready: whether it was not ready before its agent's pod was made, or that pod does not end: a roll-out passes it.
    """

    name: str
    state: State
    reason: str = ""
    message: str = ""
    remedy: str = ""
    since: datetime | None = None
    version: str = ""
    backend: str = ""
    lacks: tuple[str, ...] = ()
    directory: str = ""
    file: str = ""
    form: str = ""
    meshes: tuple[str, ...] = ()
    repairs: Repairs | None = None
    redirected: int | None = None
    settings: str = ""
    pod: str = ""
    flaw: Flaw | None = None
    was_unready: bool = False


@dataclass(frozen=True)
class Progress:
    """How far a change has got: `kind` is Rollout or Uninstall, `done` and `total` are nodes."""

    kind: str
    done: int
    total: int


@dataclass(frozen=True)
class Glance:
    """The cluster at a glance.

    Attributes:
        verdict: how it is on the whole.
        summary: the same in a sentence.
        out: whether the plugin is to be out of all nodes.
        progress: of a change that is on its way to the nodes.
        planes: the one that counts first, then by age.
        agents: None if there is no DaemonSet, or it could not be asked for.
        findings: about the cluster, the wrong ones first.
        nodes: those that are not well first, by state, then by name.
    """

    verdict: Verdict
    summary: str
    out: bool = False
    progress: Progress | None = None
    planes: tuple[Plane, ...] = ()
    agents: Agents | None = None
    findings: tuple[Finding, ...] = ()
    nodes: tuple[Node, ...] = field(default=())

    @property
    def not_well(self) -> tuple[Node, ...]:
        """The nodes that are not as they should be."""
        return tuple(each for each in self.nodes if not each.state.is_well)

    @property
    def well(self) -> tuple[Node, ...]:
        """The nodes that are as they should be."""
        return tuple(each for each in self.nodes if each.state.is_well)
