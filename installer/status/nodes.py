"""How each node is, from what its agent reports, what its agent's pod says, and what is asked for. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.fleet.rollouts import is_older
from installer.kube.names import DAEMONSET, REDIRECTING, cleaning_command
from installer.status.model import Node, NodeWarning, Repairs, State, Unavailable
from installer.status.words import kubectl, listed
from installer.terminal.ages import moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from installer.fleet.selection import Selection
    from installer.status.model import Answers, Object

PATIENCE = timedelta(seconds=60)  # for an agent that starts, as the controller has it
# What kubectl prints of a pod that does not mend without somebody.
BROKEN = (
    "BackOff", "ErrImage", "InvalidImageName", "ImageInspectError", "ConfigError", "ContainerError", "Error", "OOMKilled",
    "Evicted", "UnexpectedAdmissionError",
)  # fmt: skip
PLUGIN_FILE_IN_USE = "PluginFileInUse"  # what is wrong on a node out of which all else is taken
WAITING_FOR_UPDATE, OUTDATED_SETTINGS = (
    "WaitingForUpdate",
    "OutdatedSettings",
)  # why a node is not up to date, though its agent is ready
_ORDER = tuple(State)
_GENERATION = "deprecated.daemonset.template.generation"  # on the DaemonSet; each pod has its own as a label


@dataclass(frozen=True)
class Asked:
    """What all nodes are held against.

    Attributes:
        out: whether the plugin is to be out of all nodes.
        gone: whether there is no DaemonSet.
        settings: (uid, generation) of the control plane that counts; None if there is none, () if it does not matter.
        namespace: that of the DaemonSet; empty if it is not known.
        image: the agents'; empty if it is not known.
        template: the generation of the DaemonSet's template; empty if it is not known.
        selection: which nodes are to have an agent; None: all.
        now: the time.
    """

    out: bool
    gone: bool
    settings: tuple[str, int] | tuple[()] | None
    namespace: str
    image: str
    template: str
    selection: Selection | None
    now: datetime


class _Verdict(NamedTuple):
    """How a node is: its state, why in one word and in a sentence, what to do, and whether its agent's condition says so."""

    state: State
    reason: str = ""
    message: str = ""
    remedy: str = ""
    by_condition: bool = False


def template_generation(daemonset: Object) -> str:
    """Return the generation of a DaemonSet's template, as its pods carry it; empty if it is not there."""
    return str((daemonset["metadata"].get("annotations") or {}).get(_GENERATION, ""))


def nodes(answers: Answers, asked: Asked) -> tuple[Node, ...]:
    """Judge all nodes, those that are not well first, by state, then by name."""
    reports, pods, known = _by_name(answers.reports), _by_node(answers.pods), _by_name(answers.nodes)
    # Without the list of nodes, those are listed of which anything is known.
    names = known or (reports.keys() | pods.keys() if isinstance(answers.nodes, Unavailable) else ())
    made = []
    for name in names:
        node = known.get(name)
        judge = _Judge(
            name,
            node,
            reports.get(name),
            pods.get(name),
            replace(asked, out=asked.out or not _selected(name, node, asked.selection)),
            reports_known=not isinstance(answers.reports, Unavailable),
            pods_known=not isinstance(answers.pods, Unavailable),
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
        said = self._leaving() if self.asked.out or self.asked.gone else self._staying()
        well = said.state.is_healthy
        return Node(
            name=self.name,
            state=said.state,
            reason="" if well else said.reason,
            message="" if well else said.message,
            remedy="" if well else said.remedy,
            since=moment(self._ready.get("lastTransitionTime")) if said.by_condition else None,
            pod=self._pod_name,
            warning=self._warning if said.state in (State.READY, State.UPDATING) else self._rest,
            was_unready=self._was_unready,
            **_reported(self._status),
        )

    @property
    def _was_unready(self) -> bool:
        """Whether the controller lets a roll-out pass it, as `installer.controller.stalled_rollout` decides it."""
        metadata = (self.pod or {}).get("metadata", {})
        since, created = moment(self._ready.get("lastTransitionTime")), moment(metadata.get("creationTimestamp"))
        unready = self._ready.get("status") == "False"
        was_unready = unready and since is not None and created is not None and is_older(since, created)
        return was_unready or bool(metadata.get("deletionTimestamp"))

    def _leaving(self) -> _Verdict:
        if self._status.get("state") == "Removed":
            return _Verdict(State.REMOVED)
        if not self._has_reported and self.reports_known:
            said = "its agent has not said yet that nothing of the plugin is there"
            return _Verdict(State.REMOVING, "NoReport", said)
        if self.pod is None and self.pods_known:
            return self._left()
        if self._node_is_silent:
            return self._not_ready_node()
        return _Verdict(State.REMOVING, *self._condition("NotRemoved", "its agent is to take the plugin out"))

    def _left(self) -> _Verdict:
        """Tell of a node without an agent what was reported last: what has become of it since nobody can know."""
        was = "installed" if self._status.get("state") == "Installed" else "not installed"
        message = f"the plugin was last reported as {was}, and no agent is there to say more"
        if self.asked.gone:
            message += ": one that cannot tell that its DaemonSet is gone leaves the plugin installed"
        plugin = (self._status.get("plugin") or {}).get("path")
        directories = {
            "cniConfDir": (self._status.get("conflist") or {}).get("directory") or "CNI_CONF_DIR",
            "cniBinDir": str(PurePosixPath(plugin).parent) if plugin else "CNI_BIN_DIR",
        }
        version = self._status.get("version")
        fill = (
            [] if self.asked.image else [f"the image of {f'release {version}' if version else 'its release'} for IMAGE"]
        )
        fill += [f"its {name} for {each}" for name, each in directories.items() if each.startswith("CNI_")]
        command = cleaning_command(self.name, self.asked.image, directories.values())
        how = f"To make sure, with {listed(fill)}" if fill else "To make sure"
        return _Verdict(State.UNKNOWN, "NoAgent", message, f"{how}: {command}")

    def _staying(self) -> _Verdict:
        if self._node_is_silent:
            return self._not_ready_node()
        if self.pod is None and self.pods_known:
            why = self._kubectl(f"describe daemonset {DAEMONSET}")
            return _Verdict(State.UNKNOWN, "NoAgent", "no agent's pod is there", f"Ask why: {why}")
        condition = self._ready
        if self.pod is not None and not _is_ready(self.pod):
            return self._pod_not_ready(condition)
        if not self._has_reported and self.reports_known:
            why = self._kubectl(f"logs {self._pod_name}")
            return _Verdict(State.UNKNOWN, "NoReport", "its agent runs, and has not reported", f"Ask why: {why}")
        if self._status.get("state") == "Removed":
            again = self._kubectl(f"delete pod {self._pod_name}")
            said = "its agent has not put the plugin back yet"
            return _Verdict(State.UPDATING, "Removed", said, f"If it stays so: {again}")
        if self.reports_known and condition.get("status") != "True":
            words = self._condition("NotReady", "its agent does not say that it is ready")
            return _Verdict(State.FAILED, *words, by_condition=True)
        return self._up_to_date()

    def _up_to_date(self) -> _Verdict:
        own = ((self.pod or {}).get("metadata", {}).get("labels") or {}).get("pod-template-generation", "")
        if own and self.asked.template and own != self.asked.template:
            said = f"its agent's pod is not of the DaemonSet's generation {self.asked.template}"
            return _Verdict(State.UPDATING, WAITING_FOR_UPDATE, said)
        if self.asked.settings != () and self.reports_known:
            plane = self._status.get("controlPlane") or {}
            in_force = (plane.get("uid"), plane.get("generation")) if plane else None
            if in_force != self.asked.settings:
                seen = f"those of {_settings(plane)}" if plane else "the chart's"
                return _Verdict(State.UPDATING, OUTDATED_SETTINGS, f"the settings in force there are {seen}")
        return _Verdict(State.READY, by_condition=True)

    def _pod_not_ready(self, condition: Mapping[str, Any]) -> _Verdict:
        said = str((self.pod or {}).get("cells", {}).get("Status") or "Unknown")
        describe = self._kubectl(f"describe pod {self._pod_name}")
        # What an agent says that has only started, and Removed, which is what the one before it has done, are no failures.
        speaks = condition.get("status") == "False" and condition.get("reason") != "Removed"
        if said == "Running" and speaks:
            words = self._condition("NotReady", "its agent is not ready")
            if self._starts:
                return _Verdict(State.UPDATING, *words)
            return _Verdict(State.FAILED, *words, by_condition=True)
        if any(each in said for each in BROKEN):
            if "Image" in said:
                return _Verdict(State.FAILED, said, self._no_image, f"Check hub, tag and pull secrets: {describe}")
            logs = self._kubectl(f"logs --previous {self._pod_name}")
            return _Verdict(State.FAILED, said, "its agent does not run", f"Ask why: {logs}")
        if speaks:
            # The last words of the agent before it; or the controller's, who speaks for one that does not start.
            words = self._condition(said, "its agent does not start")
            return _Verdict(State.FAILED, *words, by_condition=True)
        if said == "ContainerCreating":
            hint = "If it stays so, cniBinDir or cniConfDir may not be there"
            return _Verdict(State.UPDATING, said, "its agent is about to start", f"{hint}: {describe}")
        return _Verdict(State.UPDATING, "Starting" if said == "Running" else said, "its agent is not ready yet")

    @property
    def _starts(self) -> bool:
        """Whether its agent's pod is new, or its condition, within the time that clocks may differ by as well."""
        pod = (self.pod or {}).get("metadata", {}).get("creationTimestamp")
        moments = map(moment, (self._ready.get("lastTransitionTime"), pod))
        return any(abs(self.asked.now - each) < PATIENCE for each in moments if each)

    @property
    def _no_image(self) -> str:
        """Say why an image cannot be had: by the controller, who has asked the kubelet, if it has said so."""
        condition = self._ready
        if condition.get("status") == "False" and "Image" in condition.get("reason", "") and condition.get("message"):
            return str(condition["message"])
        return " ".join(filter(None, ("its agent's image", self.asked.image, "cannot be had")))

    def _not_ready_node(self) -> _Verdict:
        said = "Kubernetes says that this node is not ready"
        condition = self._ready
        is_well = (condition.get("status"), condition.get("reason")) == ("True", REDIRECTING)
        if condition.get("message") and not is_well:
            said += f"; what is reported from there may be the cause: {condition['message']}"
        return _Verdict(State.UNKNOWN, "NodeNotReady", said, f"Ask why: kubectl describe node {self.name}")

    def _kubectl(self, command: str) -> str:
        return kubectl(self.asked.namespace, command)

    @property
    def _warning(self) -> NodeWarning | None:
        condition = self._ready
        reason = condition.get("reason") or REDIRECTING
        if condition.get("status") != "True" or reason == REDIRECTING:
            return None
        return NodeWarning(reason, condition.get("message") or "")

    @property
    def _rest(self) -> NodeWarning | None:
        """What the agent had to leave on a node out of which it has taken the rest: the plugin file, which others name."""
        if self._status.get("state") != "Removed" or "plugin" not in self._status:
            return None
        return NodeWarning(PLUGIN_FILE_IN_USE, self._ready.get("message") or "")

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
        "version": status.get("version") or "",
        "backend": backend.get("name") or "",
        "missing_features": tuple(each["feature"] for each in backend.get("missing") or ()),
        "directory": conflist.get("directory") or "",
        "file": conflist.get("file") or "",
        "form": conflist.get("form") or "",
        "meshes": tuple(conflist.get("meshes") or ()),
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


def _selected(name: str, node: Object | None, selection: Selection | None) -> bool:
    """Say whether a node is to have an agent. Its taints are not in kubectl's table; agents tolerate all of them."""
    return node is None or selection is None or selection.is_for(name, node["metadata"].get("labels") or {})


def _by_name(answer: Iterable[Object] | Unavailable) -> dict[str, Object]:
    return {} if isinstance(answer, Unavailable) else {each["metadata"]["name"]: each for each in answer}


def _by_node(answer: Iterable[Object] | Unavailable) -> dict[str, Object]:
    """Take one pod a node: one that stays rather than one that goes, and of those the youngest."""

    def rank(pod: Object) -> tuple[bool, str]:
        metadata = pod["metadata"]
        return not metadata.get("deletionTimestamp"), str(metadata.get("creationTimestamp", ""))

    if isinstance(answer, Unavailable):
        return {}
    return {each["cells"]["Node"]: each for each in sorted(answer, key=rank) if _is_scheduled(each)}


def _is_scheduled(pod: Object) -> bool:
    return pod["cells"].get("Node") not in (None, "", "<none>")
