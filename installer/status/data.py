"""Writes the status for programs: JSON and YAML, with keys that are stable from release to release. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from installer.kube.names import DAEMONSET

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from installer.status.model import ClusterStatus, ControlPlane, Finding, NodeStatus


def as_json(cluster: ClusterStatus, *, on_a_line: bool = False) -> str:
    """Write JSON, with a line break at the end."""
    return json.dumps(plain(cluster), indent=None if on_a_line else 2) + "\n"


def as_yaml(cluster: ClusterStatus) -> str:
    """Write YAML."""
    text: str = yaml.safe_dump(plain(cluster), sort_keys=False, allow_unicode=False)
    return text


def plain(cluster: ClusterStatus) -> dict[str, Any]:
    """Convert to types of JSON; times are RFC 3339, in UTC; unknown values are null."""
    progress, agents = cluster.progress, cluster.agents
    return {
        "health": cluster.health.value,
        "summary": cluster.summary,
        "progress": progress and {"kind": progress.kind, "done": progress.done, "total": progress.total},
        "findings": plain_findings(cluster.findings),
        "controlPlanes": [_plane(each) for each in cluster.planes],
        "daemonSet": agents
        and {
            "namespace": agents.namespace,
            "name": DAEMONSET,
            "image": agents.image,
            "parked": agents.parked,
            "terminating": agents.terminating,
            "desired": agents.desired,
            "ready": agents.ready,
            "updated": agents.updated,
            "creationTimestamp": _time(agents.created),
        },
        "nodes": [_node(each) for each in cluster.nodes],
    }


def plain_findings(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Convert findings to types of JSON."""
    return [
        {"severity": each.severity.value, "message": each.message, "remedy": each.remedy or None} for each in findings
    ]


def _plane(plane: ControlPlane) -> dict[str, Any]:
    return {
        "namespace": plane.namespace,
        "name": plane.name,
        "uid": plane.uid,
        "active": plane.active,
        "enabled": plane.enabled,
        "terminating": plane.terminating,
        "status": plane.status or None,
        "message": plane.message or None,
        "errors": [{"path": each.path, "message": each.message} for each in plane.problems],
        "conflicts": list(plane.conflicts),
        "generation": plane.generation,
        "observedGeneration": plane.observed,
        "creationTimestamp": _time(plane.created),
    }


def _node(node: NodeStatus) -> dict[str, Any]:
    repairs = node.repairs
    return {
        "name": node.name,
        "state": node.state.value,
        "healthy": node.state.is_healthy,
        "reason": node.reason or None,
        "message": node.message or None,
        "remedy": node.remedy or None,
        "warning": node.warning and {"reason": node.warning.reason, "message": node.warning.message},
        "lastTransitionTime": _time(node.since),
        "version": node.version or None,
        "backend": node.backend or None,
        "missingFeatures": list(node.missing_features),
        "conflist": {"directory": node.directory or None, "file": node.file, "form": node.form} if node.file else None,
        "repairs": repairs
        and {
            "count": repairs.count,
            "last": {"time": _time(repairs.last), "file": repairs.file} if repairs.last else None,
        },
        "redirectedPods": node.redirected,
        "settings": node.settings or None,
        "pod": node.pod or None,
    }


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment else None
