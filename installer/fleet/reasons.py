"""Reasons of a node's health, for programs: our own, and those of the kubelet. Pure."""

from __future__ import annotations

NODE_NOT_READY, NO_AGENT, NO_REPORT = "NodeNotReady", "NoAgent", "NoReport"
WAITING_FOR_UPDATE, OUTDATED_SETTINGS = "WaitingForUpdate", "OutdatedSettings"
NOT_READY, NOT_REMOVED, REMOVED = "NotReady", "NotRemoved", "Removed"
FAILED_MOUNT = "FailedMount"

IMAGE = {"ErrImageNeverPull", "ErrImagePull", "ImageInspectError", "ImagePullBackOff", "InvalidImageName"}
CRASH = {"Completed", "CrashLoopBackOff", "Error", "OOMKilled"}
HOPELESS = (IMAGE | CRASH) - {"Completed"} | {  # the kubelet's reasons that do not resolve without intervention
    "CreateContainerConfigError", "CreateContainerError", "RunContainerError",
}  # fmt: skip
OF_NO_POD = {NODE_NOT_READY, NO_AGENT, NO_REPORT, REMOVED}  # reasons that say nothing about the current pod


def cause(reason: str) -> str:
    """Return one reason for all those that the kubelet alternates between for the same cause."""
    return next((min(each) for each in (IMAGE, CRASH) if reason in each), reason)
