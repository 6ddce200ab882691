"""Why an agent's pod is not ready, and what to do. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from installer.fleet.reasons import FAILED_MOUNT, IMAGE, NOT_READY, OF_NO_POD, cause

if TYPE_CHECKING:
    from installer.fleet.objects import AgentPod, Report

_NO_DIRECTORY = re.compile(
    r'volume "(?P<volume>[^"]+)"\s*: hostPath type check failed: (?P<path>\S+) is not a directory'
)
_DIRECTORIES = {"cni-bin-dir": ("cniBinDir", "plugins"), "cni-conf-dir": ("cniConfDir", "network configuration")}


class PodWarning(NamedTuple):
    """A warning Event about a pod."""

    reason: str
    message: str


def explain_pod(pod: AgentPod, warning: PodWarning | None, report: Report | None = None) -> PodWarning:
    """Explain why an agent's pod is not ready, and what to do.

    `report` is its node's, which has the controller's message if `warning`, the latest Event, is unknown.
    """
    missing = missing_directory(warning)
    if missing and missing["volume"] in _DIRECTORIES:
        value, what = _DIRECTORIES[missing["volume"]]
        return PodWarning(
            FAILED_MOUNT,
            f"{value} {missing['path']} is not on this node: its container runtime has its {what} elsewhere, or the "
            f"directory does not exist yet. Set spec.values.cni.{value}, or the chart's platform, to where that is",
        )
    if pod.is_mute and warning:
        return PodWarning(warning.reason, f"the agent's pod {pod.name} does not start: {warning.message}")
    known = report is not None and report.by_controller and report.ready is False and report.reason not in OF_NO_POD
    if report and report.written and pod.created and report.written < pod.created:
        known = False  # about the pod before
    if known and report and (pod.is_mute or cause(pod.reason) == cause(report.reason)):
        return PodWarning(report.reason if pod.is_mute else pod.reason, report.message)
    hint = ""
    if pod.reason in IMAGE:
        hint = "; check hub, tag and pullPolicy, and whether the node reaches that registry"
    elif pod.reason == "CrashLoopBackOff":
        hint = f"; kubectl logs --previous {pod.name} says why it exits"
    elif pod.reason == "Unschedulable":
        hint = "; free resources on the node: the pod's class is system-node-critical"
    return PodWarning(
        pod.reason or NOT_READY, f"the agent's pod {pod.name} is not ready: {pod.message or pod.reason}{hint}"
    )


def missing_directory(warning: PodWarning | None) -> re.Match[str] | None:
    """Find the volume and the path of a directory that a pod mounts but that is missing on the node."""
    return _NO_DIRECTORY.search(warning.message) if warning and warning.reason == FAILED_MOUNT else None
