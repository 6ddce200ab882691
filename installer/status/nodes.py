"""How each node is, from what its agent reports, what its agent's pod says, and what is asked for. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from installer.objects import DAEMONSET
from installer.status.ages import moment
from installer.status.model import Node, Repairs, State, Unasked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from installer.status.model import Answers, Object

# What kubectl prints of a pod that does not mend without somebody.
BROKEN = (
    "BackOff", "ErrImage", "InvalidImageName", "ImageInspectError", "ConfigError", "ContainerError", "Error", "OOMKilled",
    "Evicted", "UnexpectedAdmissionError",
)  # fmt: skip
_ORDER = tuple(State)
_GENERATION = "deprecated.daemonset.template.generation"  # on the DaemonSet; each pod has its own as a label


@dataclass(frozen=True)
class Asked:
    """What all nodes are held against.

    Attributes:
        out: whether the plugin is to be out of all nodes.
        settings: (uid, generation) of the control plane that counts; None if there is none, () if it does not matter.
        namespace: that of the DaemonSet.
        template: the generation of the DaemonSet's template; empty if it is not known.
        selector: the labels of nodes that are to have an agent.
    """

    out: bool
    settings: tuple[str, int] | tuple[()] | None
    namespace: str
    template: str
    selector: Mapping[str, str]


def template_generation(daemonset: Object) -> str:
    """Return the generation of a DaemonSet's template, as its pods carry it; empty if it is not there."""
    return str((daemonset["metadata"].get("annotations") or {}).get(_GENERATION, ""))


def nodes(answers: Answers, asked: Asked) -> tuple[Node, ...]:
    """Judge all nodes, those that are not well first, by state, then by name."""
    reports, pods, known = _by_name(answers.reports), _by_node(answers.pods), _by_name(answers.nodes)
    # Without the list of nodes, those are listed of which anything is known.
    names = known or (reports.keys() | pods.keys() if isinstance(answers.nodes, Unasked) else ())
    made = []
    for name in names:
        node = known.get(name)
        judge = _Judge(
            name,
            node,
            reports.get(name),
            pods.get(name),
            replace(asked, out=asked.out or not _selected(node, asked.selector)),
            reports_known=not isinstance(answers.reports, Unasked),
            pods_known=not isinstance(answers.pods, Unasked),
        )
        if not judge.is_outside:
            made.append(judge.node())
    return tuple(sorted(made, key=lambda each: (_ORDER.index(each.state), each.name)))


@dataclass(frozen=True)
class _Judge:
    name: str
    kubernetes: Object | None
    report: Object | None
    pod: Object | None
    asked: Asked
    reports_known: bool
    pods_known: bool

    @property
    def is_outside(self) -> bool:
        """Whether the node has nothing to do with us: no agent is to be there, or was."""
        return self.asked.out and not self._has_reported and self.pod is None

    def node(self) -> Node:
        state, reason, message, remedy = self._leaving() if self.asked.out else self._staying()
        well = state.is_well
        return Node(
            name=self.name,
            state=state,
            reason="" if well else reason,
            message="" if well else message,
            remedy="" if well else remedy,
            pod=self._pod_name,
            **_reported(self._status),
        )

    def _leaving(self) -> tuple[State, str, str, str]:
        if self._status.get("state") == "Removed":
            return State.REMOVED, "", "", ""
        if not self._has_reported and self.reports_known:
            return State.LEAVING, "NotReported", "its agent has not said yet that nothing of the plugin is there", ""
        if self.pod is None and self.pods_known:
            return (
                State.SILENT,
                "NoAgent",
                "the plugin is still in the runtime's chain, and no agent runs there to take it out",
                "As root on that node, with this release's image: install-cni uninstall.",
            )
        if self._node_is_silent:
            return self._not_ready_node()
        return State.LEAVING, *self._condition("NotRemoved", "its agent is to take the plugin out"), ""

    def _staying(self) -> tuple[State, str, str, str]:
        if self._node_is_silent:
            return self._not_ready_node()
        if self.pod is None and self.pods_known:
            return (
                State.SILENT,
                "NoAgent",
                "no agent's pod is there",
                f"Ask why: kubectl --namespace {self.asked.namespace} describe daemonset {DAEMONSET}",
            )
        condition = self._ready
        if self.pod is not None and not _is_ready(self.pod):
            return self._pod_not_ready(condition)
        if not self._has_reported and self.reports_known:
            return (
                State.SILENT,
                "NotReported",
                "its agent runs, and has not reported",
                f"Ask why: kubectl --namespace {self.asked.namespace} logs {self._pod_name}",
            )
        if self._status.get("state") == "Removed":
            return (
                State.UPDATING,
                "Removed",
                "its agent has not put the plugin back yet",
                f"If it stays so: kubectl --namespace {self.asked.namespace} delete pod {self._pod_name}",
            )
        if self.reports_known and condition.get("status") != "True":
            return State.FAILED, *self._condition("NotReady", "its agent does not say that it is ready"), ""
        return self._up_to_date()

    def _up_to_date(self) -> tuple[State, str, str, str]:
        own = ((self.pod or {}).get("metadata", {}).get("labels") or {}).get("pod-template-generation", "")
        if own and self.asked.template and own != self.asked.template:
            return (
                State.UPDATING,
                "OldPod",
                f"its agent's pod is not of the DaemonSet's generation {self.asked.template}",
                "",
            )
        if self.asked.settings != () and self.reports_known:
            plane = self._status.get("controlPlane") or {}
            in_force = (plane.get("uid"), plane.get("generation")) if plane else None
            if in_force != self.asked.settings:
                seen = f"those of {_settings(plane)}" if plane else "the chart's"
                return State.UPDATING, "OldSettings", f"the settings in force there are {seen}", ""
        return State.READY, "", "", ""

    def _pod_not_ready(self, condition: Mapping[str, Any]) -> tuple[State, str, str, str]:
        said = str((self.pod or {}).get("cells", {}).get("Status") or "Unknown")
        describe = f"kubectl --namespace {self.asked.namespace} describe pod {self._pod_name}"
        if said == "Running" and condition.get("status") == "False":
            return State.FAILED, *self._condition("NotReady", "its agent is not ready"), ""
        if any(each in said for each in BROKEN):
            if "Image" in said:
                return (
                    State.FAILED,
                    said,
                    "its agent's image cannot be had",
                    f"Check hub, tag and pull secrets: {describe}",
                )
            logs = f"kubectl --namespace {self.asked.namespace} logs --previous {self._pod_name}"
            return State.FAILED, said, "its agent does not run", f"Ask why: {logs}"
        if condition.get("status") == "False" and condition.get("reason") != "Removed":
            # The last words of the agent before it; or the controller's, who speaks for one that does not start.
            return State.FAILED, *self._condition(said, "its agent does not start"), ""
        if said == "ContainerCreating":
            hint = "If it stays so, cniBinDir or cniConfDir may not be there"
            return State.UPDATING, said, "its agent is about to start", f"{hint}: {describe}"
        return State.UPDATING, "Starting" if said == "Running" else said, "its agent is not ready yet", ""

    def _not_ready_node(self) -> tuple[State, str, str, str]:
        return (
            State.SILENT,
            "NodeNotReady",
            "its kubelet does not answer, so that what is known of it is old",
            f"Ask why: kubectl describe node {self.name}",
        )

    @property
    def _node_is_silent(self) -> bool:
        # kubectl's column: Ready, NotReady or Unknown, then what else there is, with commas.
        said = str((self.kubernetes or {}).get("cells", {}).get("Status", "Ready"))
        return said.split(",", 1)[0] != "Ready"

    @property
    def _has_reported(self) -> bool:
        """Whether an agent has: where none runs the controller writes the condition alone."""
        return "state" in self._status

    @property
    def _status(self) -> Mapping[str, Any]:
        return (self.report or {}).get("status") or {}

    @property
    def _ready(self) -> Mapping[str, Any]:
        return _condition(self._status)

    @property
    def _pod_name(self) -> str:
        return str(self.pod["metadata"]["name"]) if self.pod else ""

    def _condition(self, reason: str, message: str) -> tuple[str, str]:
        """Take the agent's own words, or these where it has none."""
        condition = self._ready if self._ready.get("status") != "True" else {}
        return condition.get("reason") or reason, condition.get("message") or message


def _reported(status: Mapping[str, Any]) -> dict[str, Any]:
    """Take over what an agent reports."""
    conflist, repairs = status.get("conflist") or {}, status.get("repairs")
    last = (repairs or {}).get("last") or {}
    backend, plane = status.get("backend") or {}, status.get("controlPlane")
    return {
        "since": moment(_condition(status).get("lastTransitionTime")),
        "version": status.get("version") or "",
        "backend": backend.get("name") or "",
        "lacks": tuple(each["feature"] for each in backend.get("missing") or ()),
        "directory": conflist.get("directory") or "",
        "file": conflist.get("file") or "",
        "form": conflist.get("form") or "",
        "repairs": None
        if repairs is None
        else Repairs(
            repairs.get("count") or 0, moment(last.get("time")), last.get("file") or "", last.get("reason") or ""
        ),
        "redirected": (status.get("pods") or {}).get("redirected"),
        "settings": _settings(plane) if plane else "",
    }


def _settings(plane: Mapping[str, Any]) -> str:
    return f"{plane.get('namespace')}/{plane.get('name')}@{plane.get('generation')}"


def _condition(status: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Iterator[Mapping[str, Any]] = (
        each for each in status.get("conditions") or () if each.get("type") == "Ready"
    )
    return next(found, {})


def _is_ready(pod: Object) -> bool:
    ready, _, of = str(pod["cells"].get("Ready", "")).partition("/")
    return ready == of and not pod["metadata"].get("deletionTimestamp")


def _selected(node: Object | None, selector: Mapping[str, str]) -> bool:
    if node is None:
        return True
    labels = node["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in selector.items())


def _by_name(answer: Iterable[Object] | Unasked) -> dict[str, Object]:
    return {} if isinstance(answer, Unasked) else {each["metadata"]["name"]: each for each in answer}


def _by_node(answer: Iterable[Object] | Unasked) -> dict[str, Object]:
    """Take one pod a node: one that stays rather than one that goes, and of those the youngest."""

    def rank(pod: Object) -> tuple[bool, str]:
        metadata = pod["metadata"]
        return not metadata.get("deletionTimestamp"), str(metadata.get("creationTimestamp", ""))

    if isinstance(answer, Unasked):
        return {}
    return {each["cells"]["Node"]: each for each in sorted(answer, key=rank) if _is_scheduled(each)}


def _is_scheduled(pod: Object) -> bool:
    return pod["cells"].get("Node") not in (None, "", "<none>")
