"""The status of this node's IstioCNINode, for `kubectl get istiocninodes`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from installer.config.settings import PLUGIN
from installer.fleet.objects import find_condition
from installer.kube.names import LONGEST_MESSAGE, REDIRECTING
from installer.kube.times import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from installer.config.desired import DesiredState
    from installer.config.settings import Settings
    from installer.fleet.state import Condition, NodeState
    from plugin.backend import Capability

LONGEST_REASON = 1024  # characters, as in the CRD

INVALID_SETTINGS = "InvalidSettings"  # a reason of a condition that is True
_REASONS = {
    "installed": "NotInstalled",
    "serving": "NotServing",
    "redirecting": "NoUsableBackend",
    "pods": "PodCacheNotSynced",
    "settings": "SettingsNotSynced",
    "runtime": "ConflistNotLoaded",
    "files": "FileSystemNotResponding",
}


@dataclass(frozen=True)
class Observed:
    """What an agent knows about itself and its node at one moment.

    Attributes:
        version: the agent's release.
        node: the state of the node's files.
        tried: the capability of each backend.
        chosen: the backend in use.
        conditions: the readiness conditions, named as in /readyz.
        redirected: how many of the node's pods hold a redirect; None: not counted yet.
        repaired: how many of those were redirected while they ran.
        unredirected_pods: the first mesh pods without a redirect, each with the reason.
        unasked: why the health address does not answer; empty if it does.
        unredirected: how many mesh pods run without a redirect.
    """

    version: str
    desired: DesiredState
    node: NodeState
    tried: Sequence[Capability]
    chosen: Capability
    conditions: Sequence[Condition]
    redirected: int | None
    repaired: int = 0
    unredirected_pods: Sequence[str] = ()
    unasked: str = ""
    unredirected: int = 0


def build_status(observed: Observed, last: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Build the status.

    `last` is the previous status: an unchanged condition keeps its lastTransitionTime. `now` is in UTC.

    Returns:
        The status that charts/istio-cni/crds/istiocninode.yaml describes.
    """
    settings, node = observed.desired.settings, observed.node
    state = "Removed" if node.removed else "Installed" if node.installed else "NotInstalled"
    status: dict[str, Any] = {
        "state": state,
        "version": observed.version,
        "repairs": {"count": node.repairs},
        "pods": _pods(observed, last),
        "conditions": [_ready(observed, last, now)],
    }
    if node.last_repair:
        when = datetime.fromtimestamp(int(node.last_repair.time), UTC)
        status["repairs"]["last"] = {"time": rfc3339(when), "file": node.last_repair.file}
    if node.installed and node.conflist:
        directory = str(settings.cni_conf_dir)
        status["conflist"] = {"directory": directory, "file": node.conflist, "form": node.form.value}
        if node.meshes:
            status["conflist"]["meshes"] = [*node.meshes]
        status["plugin"] = {"path": str(settings.cni_bin_dir / PLUGIN), "sha256": node.digest}
    elif node.stays:
        status["plugin"] = {"path": str(settings.cni_bin_dir / PLUGIN)} | (
            {"sha256": node.digest} if node.digest else {}
        )
    elif not node.removed:  # the last location, where it may still be: the next agent has to know
        status |= {key: last[key] for key in ("conflist", "plugin") if key in last}
    if observed.tried:
        status["backend"] = _backend(observed.chosen)
        status["preflight"] = [_backend(each) | {"usable": each.unusable is None} for each in observed.tried]
    if observed.desired.control_plane:
        status["controlPlane"] = observed.desired.control_plane._asdict()
    return status


def stale_directories(last: Mapping[str, Any], settings: Settings) -> tuple[Path, ...]:
    """Name the directories of the previous agent's installation that this agent does not manage.

    `last` is the status that the previous agent wrote.
    """
    directory, plugin = last.get("conflist", {}).get("directory"), last.get("plugin", {}).get("path")
    before = (
        (directory and Path(directory), settings.cni_conf_dir),
        (plugin and Path(plugin).parent, settings.cni_bin_dir),
    )
    return tuple(old for old, now in before if old and old != now)


def _ready(observed: Observed, last: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    failed = [each for each in observed.conditions if each.reason is not None]
    notes = [*_notes(observed)]
    messages = [message for _, message in notes]
    if observed.node.removed:
        stays = [observed.node.stays] if observed.node.stays else []
        value, reason, messages = "False", "Removed", [f"removed: {observed.desired.reason}", *stays, *messages]
    elif failed:
        value, reason = "False", "Conflict" if observed.node.conflict else _REASONS[failed[0].name]
        messages = ["; ".join(str(each.reason) for each in failed), *messages]
    else:
        value, reason = "True", notes[0][0] if notes else REDIRECTING
        messages = [*messages, f"pods are redirected by {observed.chosen}"]
    condition = {"type": "Ready", "status": value, "reason": reason, "message": ". ".join(messages)[:LONGEST_MESSAGE]}
    before = find_condition(last, "Ready")
    same = before.get("status") == value
    return condition | {"lastTransitionTime": before["lastTransitionTime"] if same else rfc3339(now)}


def _notes(observed: Observed) -> Iterator[tuple[str, str]]:
    """List the warnings that do not prevent redirection, each as a reason and a message."""
    directory = observed.desired.settings.cni_conf_dir
    for name, reason in () if observed.node.removed else observed.node.skipped:
        message = f"{directory / name} is no valid network configuration: {reason}; correct or remove it"
        yield "InvalidConflist", f"{message}: containerd loads no configuration while this file comes first"
    for each in observed.desired.problems:
        yield INVALID_SETTINGS, f"invalid IstioControlPlane, the last good settings stay in force: {each}"
    for pod in observed.unredirected_pods:
        yield "PodsNotRedirected", pod
    if observed.unasked:
        message = (
            f"the agent cannot listen on its health address: {observed.unasked}. Probes and scrapes do not reach it"
        )
        yield (
            "HealthEndpointUnavailable",
            f"{message}; `ss -lptn` shows which program listens there, or set cni.healthAddress",
        )


def _pods(observed: Observed, last: Mapping[str, Any]) -> dict[str, int]:
    """Return the pod counts; until its first count an agent reports the previous agent's."""
    counts = {"redirected": observed.redirected or 0, "unredirected": observed.unredirected}
    if observed.redirected is None:
        counts |= {key: number for key, number in last.get("pods", {}).items() if key in counts}
    return counts | {"repaired": observed.repaired}


def _backend(capability: Capability) -> dict[str, Any]:
    missing = [
        {"feature": feature.value, "reason": reason[:LONGEST_REASON]} for feature, reason in capability.missing.items()
    ]
    return {"name": capability.backend.value} | ({"missing": missing} if missing else {})
