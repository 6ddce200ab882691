"""The status of an IstioControlPlane, in the shape of Istio 1.4 and with conditions (D10). Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.fleet.node_health import State
from installer.fleet.objects import find_condition
from installer.fleet.reasons import WAITING_FOR_UPDATE
from installer.fleet.rollouts import ROLLOUT_BLOCKED
from installer.kube.times import rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from installer.config.values import Problem
    from installer.fleet.node_health import NodeHealth

MOST_NAMED = 10  # nodes to name
LONGEST = 8192  # characters of a message

NONE, UPDATING, HEALTHY, ERROR, RECONCILING = "NONE", "UPDATING", "HEALTHY", "ERROR", "RECONCILING"


class Fault(NamedTuple):
    """Why a resource is not applied: reason for programs, message for people."""

    reason: str
    message: str


@dataclass(frozen=True)
class Fleet:
    """The nodes that a control plane manages.

    Attributes:
        installed: whether they have the plugin.
        verdicts: the health of each, by name.
        version: the releases that they run, separated by commas.
        removal: why they do not have the plugin; empty if they do.
        held_up_by: maxUnavailable, if as many nodes are without a ready agent during a rollout; 0: fewer are.
    """

    installed: bool
    verdicts: Sequence[NodeHealth]
    version: str
    removal: str = ""
    held_up_by: int = 0


class _Value(NamedTuple):
    """Status, reason and message of a condition."""

    status: str
    reason: str
    message: str


class _Summary(NamedTuple):
    status: str
    sentence: str
    error: str
    ready: _Value
    reconciled: _Value
    degraded: _Value


_WELL = _Value("False", "AsExpected", "no action required")


def build_invalid_fault(problems: Sequence[Problem]) -> Fault:
    """Make the fault for an invalid resource: all its problems, each with its path."""
    return Fault("Invalid", "; ".join(map(str, problems)))


def build_superseded_fault(older: Mapping[str, Any]) -> Fault:
    """Make the fault for a resource that is not active."""
    name = f"{older['metadata']['namespace']}/{older['metadata']['name']}"
    return Fault(
        "Superseded",
        f"IstioControlPlane {name} takes precedence, as it is older; delete one of the two, or move the settings of "
        "this one there",
    )


def build_status(
    resource: Mapping[str, Any],
    fleet: Fleet | None,
    faults: Sequence[Fault],
    now: datetime,
    previous: Mapping[str, Any],
    *,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Make the status.

    `fleet` is None for a resource that is not active. `notes` are settings without effect, each in a sentence; they are
    added if the others are applied.

    Returns:
        The status, equal to the previous one if nothing has changed.
    """
    generation = resource["metadata"].get("generation", 0)
    summary = _summarize(fleet, faults, notes)
    result: dict[str, Any] = {
        "observedGeneration": generation,
        "status": {
            "cni": {
                "version": fleet.version if fleet else "",
                "status": summary.status,
                "statusString": _short(summary.sentence),
                "error": _short(summary.error),
            }
        },
        "conditions": [
            _condition(kind, each, generation, now, previous)
            for kind, each in (
                ("Ready", summary.ready),
                ("Reconciled", summary.reconciled),
                ("Degraded", summary.degraded),
            )
        ],
    }
    if fleet:
        result["nodes"] = _counts(fleet)
        result["unhealthyNodes"] = [
            {"node": each.node, "reason": each.reason or "Unknown", "message": _short(each.message)}
            for each in _unhealthy(fleet)[:MOST_NAMED]
        ]
    return result


def build_patch(written: Mapping[str, Any], previous: Mapping[str, Any]) -> dict[str, Any]:
    """Make the merge patch (RFC 7386) from one status to another; empty if no write is needed.

    Other writers' fields, such as the status of other components, stay.
    """
    removed = {key: None for key in ("nodes", "unhealthyNodes") if key not in written}
    return _difference(dict(written) | removed, previous)


def _difference(desired: Mapping[str, Any], observed: Mapping[str, Any]) -> dict[str, Any]:
    difference: dict[str, Any] = {}
    for key, value in desired.items():
        if value is None:
            difference |= {key: None} if key in observed else {}
        elif isinstance(value, dict) and isinstance(observed.get(key), dict):
            difference |= {key: below} if (below := _difference(value, observed[key])) else {}
        elif key not in observed or observed[key] != value:
            difference[key] = value
    return difference


def _summarize(fleet: Fleet | None, faults: Sequence[Fault], notes: Sequence[str]) -> _Summary:
    if faults:
        reason, message = faults[0].reason, "; ".join(each.message for each in faults)
        suffix = " The nodes keep the last good settings." if reason == "Invalid" else ""
        sentence = f"not applied: {message}{'' if message.endswith('?') else '.'}{suffix}"
        unready = _Value("False", reason, message)
        return _Summary(ERROR, sentence, message, unready, unready, _Value("True", reason, message))
    assert fleet is not None  # a resource without fault counts  # noqa: S101
    summary = _installed(fleet) if fleet.installed else _removed(fleet)
    reconciled = summary.reconciled._replace(message="; ".join([summary.reconciled.message, *notes]))
    return summary._replace(sentence="; ".join([summary.sentence, *notes]), reconciled=reconciled)


def _installed(fleet: Fleet) -> _Summary:
    count = Counter(each.state for each in fleet.verdicts)
    total, ready = len(fleet.verdicts), count[State.READY]
    applied = _Value("True", "Applied", "the settings are applied")
    of = f"{ready} of {total} nodes redirect pods with these settings"
    if lost := _unhealthy(fleet):
        held_up = _describe_hold_up(fleet)
        message = f"{of}; {_name_first(lost)}{held_up}"
        reason = "NodesFailed" if count[State.FAILED] else "NodesUnknown"
        degraded = _Value("True", ROLLOUT_BLOCKED if held_up else reason, message)
        return _Summary(ERROR, message, _name_first(lost), _Value("False", reason, message), applied, degraded)
    if count[State.UPDATING]:
        message = f"{of}; updating {count[State.UPDATING] + count[State.REPAIRING]}"
        return _Summary(UPDATING, message, "", _Value("False", "Updating", message), applied, _WELL)
    if count[State.REPAIRING]:
        message = f"{of}; repairing {count[State.REPAIRING]}"
        return _Summary(RECONCILING, message, "", _Value("False", "Repairing", message), applied, _WELL)
    if not total:
        of = "the DaemonSet selects no node"
    return _Summary(HEALTHY, of, "", _Value("True", "AllNodesReady", of), applied, _WELL)


def _describe_hold_up(fleet: Fleet) -> str:
    """Describe the nodes that the rollout waits for, if it does."""
    waiting = sum(each.reason == WAITING_FOR_UPDATE for each in fleet.verdicts)
    if not waiting or not fleet.held_up_by:
        return ""
    return (
        f"; the rollout waits for them, with {waiting} agents still to be replaced: at most {fleet.held_up_by} nodes may be "
        "without a ready agent (cni.maxUnavailable)"
    )


def _removed(fleet: Fleet) -> _Summary:
    remaining = [each for each in fleet.verdicts if not each.state.is_healthy]
    if not remaining:
        message = f"the plugin is removed from all nodes: {fleet.removal}"
        return _Summary(
            NONE, message, "", _Value("False", "Removed", message), _Value("True", "Removed", message), _WELL
        )
    message = f"removing the plugin: {fleet.removal}; {len(fleet.verdicts) - len(remaining)} of {len(fleet.verdicts)}"
    message += " nodes done"
    unready = _Value("False", "Removing", message)
    if lost := _unhealthy(fleet):
        message = f"{message}; {_name_first(lost)}"
        return _Summary(ERROR, message, _name_first(lost), unready, unready, _Value("True", "NodesNotRemoved", message))
    return _Summary(UPDATING, message, "", unready, unready, _WELL)


def _counts(fleet: Fleet) -> dict[str, int]:
    count = Counter(each.state for each in fleet.verdicts)
    return {
        "total": len(fleet.verdicts) if fleet.installed else 0,
        "ready": count[State.READY] if fleet.installed else 0,
        "updating": count[State.UPDATING] + count[State.REPAIRING] + count[State.REMOVING],
        "failed": count[State.FAILED],
        "unknown": count[State.UNKNOWN],
    }


def _unhealthy(fleet: Fleet) -> list[NodeHealth]:
    return [each for each in fleet.verdicts if each.state.is_lost]


def _name_first(lost: Sequence[NodeHealth]) -> str:
    first = lost[0]
    others = f" (and {len(lost) - 1} more, see unhealthyNodes)" if len(lost) > 1 else ""
    return f"node {first.node}: {first.reason}: {first.message}{others}"


def _condition(kind: str, value: _Value, generation: int, now: datetime, previous: Mapping[str, Any]) -> dict[str, Any]:
    before = find_condition(previous, kind)
    since = before.get("lastTransitionTime") if before.get("status") == value.status else None
    return {
        "type": kind,
        "status": value.status,
        "reason": value.reason,
        "message": _short(value.message),
        "lastTransitionTime": since or rfc3339(now),
        "observedGeneration": generation,
    }


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
