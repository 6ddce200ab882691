"""How a node is, compared with what is asked for; and why an agent's pod does not run. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from installer.controller.finalizer import REMOVED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from installer.fleet.objects import AgentPod, Report, Settings

PATIENCE = timedelta(seconds=60)  # what changes, starts or is mended gets it before it counts as failed
AT_ONCE = timedelta(0)
WAITS_ITS_TURN = "WaitingForUpdate"  # however long that takes: patience begins when the agent is replaced

_HOPELESS = {  # what a container waits for, in the kubelet's words, that does not come by itself
    "CrashLoopBackOff", "CreateContainerConfigError", "CreateContainerError", "ErrImageNeverPull", "ErrImagePull", "Error",
    "ImageInspectError", "ImagePullBackOff", "InvalidImageName", "OOMKilled", "RunContainerError",
}  # fmt: skip
_IMAGE = {"ErrImageNeverPull", "ErrImagePull", "ImageInspectError", "ImagePullBackOff", "InvalidImageName"}
_ENDS = {"Completed", "CrashLoopBackOff", "Error", "OOMKilled"}
_NOT_THERE = re.compile(r'volume "(?P<volume>[^"]+)"\s*: hostPath type check failed: (?P<path>\S+) is not a directory')
_DIRECTORIES = {"cni-bin-dir": ("cniBinDir", "plugins"), "cni-conf-dir": ("cniConfDir", "network configuration")}


class State(Enum):
    """How a node is."""

    READY = "ready"  # as it is asked for
    UPDATING = "updating"  # on its way there
    REPAIRING = "repairing"  # it was there, and has lost something
    FAILED = "failed"
    UNKNOWN = "unknown"  # nobody has said anything


@dataclass(frozen=True)
class Asked:
    """What every node is asked for.

    Attributes:
        installed: whether the plugin is to be there.
        settings: whose settings are to be in force; None: whoever's, as the resource is wrong.
        template: the generation of the DaemonSet's template; empty: unknown.
    """

    installed: bool
    settings: Settings | None
    template: str


class Verdict(NamedTuple):
    """How a node is, and why: in a word for programs, and for people with what to do."""

    node: str
    state: State
    reason: str = ""
    message: str = ""


class Warned(NamedTuple):
    """The latest warning Event of a pod."""

    reason: str
    message: str


class Seen(NamedTuple):
    """What is known of a node: its name, its agent's report and pod, and the latest warning about that pod, if asked for."""

    node: str
    report: Report | None
    pod: AgentPod | None
    warned: Warned | None = None


class _Trouble(NamedTuple):
    """What keeps a node from being as asked: until patience is at its end it is `soon`, then `late`."""

    reason: str
    message: str
    soon: State
    late: State
    patience: timedelta = PATIENCE
    since: datetime | None = None


def verdict(seen: Seen, asked: Asked, unwell_since: datetime, now: datetime) -> Verdict:
    """Judge a node.

    Args:
        seen: what is known of it.
        asked: what it is compared with.
        unwell_since: since when it is not as asked; now, if it was until now.
        now: the time.
    """
    judge = _not_installed if asked.installed else _not_removed
    found = judge(seen, asked)
    if found is None:
        return Verdict(seen.node, State.READY)
    late = now - (found.since or unwell_since) >= found.patience
    return Verdict(seen.node, found.late if late else found.soon, found.reason, found.message)


def why(pod: AgentPod, warned: Warned | None) -> Warned:
    """Say why an agent's pod is not ready, and what to do."""
    missing = _missing_directory(warned)
    if missing and missing["volume"] in _DIRECTORIES:
        value, what = _DIRECTORIES[missing["volume"]]
        return Warned(
            "FailedMount",
            f"{value} {missing['path']} is not on this node: its container runtime has its {what} elsewhere, or nothing has "
            f"made it yet. Set spec.values.cni.{value}, or the chart's platform, to where that is",
        )
    if pod.is_mute and warned:
        return Warned(warned.reason, f"the agent's pod {pod.name} does not start: {warned.message}")
    what_to_do = ""
    if pod.reason in _IMAGE:
        what_to_do = "; see whether hub, tag and pullPolicy are right, and whether the node reaches that registry"
    elif pod.reason == "CrashLoopBackOff":
        what_to_do = f"; kubectl logs --previous {pod.name} says why it ends"
    elif pod.reason == "Unschedulable":
        what_to_do = "; make room on the node: the pod's class is system-node-critical"
    return Warned(
        pod.reason or "NotReady", f"the agent's pod {pod.name} is not ready: {pod.message or pod.reason}{what_to_do}"
    )


def family(reason: str) -> str:
    """Return one reason for all those by which the kubelet says the same in turns."""
    return next((min(each) for each in (_IMAGE, _ENDS) if reason in each), reason)


def _missing_directory(warned: Warned | None) -> re.Match[str] | None:
    return _NOT_THERE.search(warned.message) if warned and warned.reason == "FailedMount" else None


def _not_installed(seen: Seen, asked: Asked) -> _Trouble | None:
    report, pod, warned = seen.report, seen.pod, seen.warned
    follows = report is not None and (asked.settings is None or report.settings == asked.settings)
    current = pod is not None and (not asked.template or not pod.template or pod.template == asked.template)
    soon = State.REPAIRING if follows and current else State.UPDATING
    if pod is None:
        said = "no agent runs on this node: is the node up, and does DaemonSet istio-cni-node get a pod onto it?"
        return _Trouble("NoAgent", said, soon, State.FAILED if report else State.UNKNOWN)
    if not pod.ready and not pod.going:
        # An agent that runs and is not ready has said why itself.
        if pod.runs and report is not None and report.ready is False:
            return _Trouble(report.reason, report.message, soon, State.FAILED, since=report.since)
        return _of_pod(pod, warned, soon, reported=report is not None)
    if report is None:
        return _Trouble("NoReport", "its agent runs, and has not reported yet", soon, State.UNKNOWN)
    if not follows:
        said = f"its agent has not taken over the settings of the resource yet; its log says why (pod {pod.name})"
        return _Trouble("OutdatedSettings", said, State.UPDATING, State.FAILED)
    if report.ready is not True or report.state != "Installed":
        reason, said = report.reason or "NotReady", report.message or "its agent does not say why"
        return _Trouble(reason, said, soon, State.FAILED, since=report.since)
    if not current or pod.going:
        return _Trouble(WAITS_ITS_TURN, "its agent waits for its turn to be replaced", State.UPDATING, State.UPDATING)
    return None


def _not_removed(seen: Seen, _: Asked) -> _Trouble | None:
    report, pod, warned = seen.report, seen.pod, seen.warned
    if report is None and pod is None:
        return None  # no agent ever was there
    if report is not None and report.state == REMOVED:
        return None
    late = State.FAILED if report else State.UNKNOWN
    if pod is None:
        said = "the plugin is still there, and no agent runs that could take it out; `install-cni uninstall` there does"
        return _Trouble("NoAgent", said, State.UPDATING, late)
    if not pod.runs:
        return _of_pod(pod, warned, State.UPDATING, reported=report is not None)
    return _Trouble("NotRemoved", "its agent has not taken the plugin out yet; its log says why", State.UPDATING, late)


def _of_pod(pod: AgentPod, warned: Warned | None, soon: State, *, reported: bool) -> _Trouble:
    reason, message = why(pod, warned)
    # On a node that is new the primary CNI may be about to make the directory.
    if reason in _HOPELESS or (reported and _missing_directory(warned)):
        return _Trouble(reason, message, soon, State.FAILED, AT_ONCE)
    return _Trouble(reason, message, soon, State.FAILED if reported else State.UNKNOWN)


def unwell_since(before: Mapping[str, datetime], verdicts: Iterable[Verdict], now: datetime) -> dict[str, datetime]:
    """Say since when nodes are not as they are to be, for `verdict`: patience does not begin while one waits for its turn.

    Args:
        before: the same, of the last time.
        verdicts: now.
        now: the time.
    """
    unwell = (each for each in verdicts if each.state is not State.READY and each.reason != WAITS_ITS_TURN)
    return {each.node: before.get(each.node, now) for each in unwell}


def versions(reports: Mapping[str, Report]) -> str:
    """Return the release that the nodes run: several, with commas between them, while it changes."""
    return ", ".join(sorted({each.version for each in reports.values() if each.version}))
