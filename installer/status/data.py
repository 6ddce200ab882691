"""The cluster at a glance for programs: JSON and YAML, whose keys stay as they are from release to release. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from installer.kube.names import DAEMONSET

if TYPE_CHECKING:
    from datetime import datetime

    from installer.status.model import Glance, Node, Plane


def as_json(glance: Glance, *, on_a_line: bool = False) -> str:
    """Write it as JSON, with a line break at the end."""
    return json.dumps(plain(glance), indent=None if on_a_line else 2) + "\n"


def as_yaml(glance: Glance) -> str:
    """Write it as YAML."""
    text: str = yaml.safe_dump(plain(glance), sort_keys=False, allow_unicode=False)
    return text


def plain(glance: Glance) -> dict[str, Any]:
    """Make it of what JSON knows; times are RFC 3339, in UTC; what is not known is null."""
    progress, agents = glance.progress, glance.agents
    return {
        "verdict": glance.verdict.title,
        "summary": glance.summary,
        "progress": progress and {"kind": progress.kind, "done": progress.done, "total": progress.total},
        "findings": [
            {"weight": each.weight.value, "what": each.what, "remedy": each.remedy or None} for each in glance.findings
        ],
        "controlPlanes": [_plane(each) for each in glance.planes],
        "daemonSet": agents
        and {
            "namespace": agents.namespace,
            "name": DAEMONSET,
            "image": agents.image,
            "parked": agents.parked,
            "leaving": agents.leaving,
            "wanted": agents.wanted,
            "ready": agents.ready,
            "updated": agents.updated,
            "created": _time(agents.created),
        },
        "nodes": [_node(each) for each in glance.nodes],
    }


def _plane(plane: Plane) -> dict[str, Any]:
    return {
        "namespace": plane.namespace,
        "name": plane.name,
        "uid": plane.uid,
        "counts": plane.counts,
        "enabled": plane.enabled,
        "leaving": plane.leaving,
        "status": plane.status or None,
        "message": plane.message or None,
        "problems": [{"path": each.path, "message": each.message} for each in plane.problems],
        "contradicts": list(plane.contradicts),
        "generation": plane.generation,
        "observedGeneration": plane.observed,
        "created": _time(plane.created),
    }


def _node(node: Node) -> dict[str, Any]:
    repairs = node.repairs
    return {
        "name": node.name,
        "state": node.state.value,
        "well": node.state.is_well,
        "reason": node.reason or None,
        "message": node.message or None,
        "remedy": node.remedy or None,
        "flaw": node.flaw and {"reason": node.flaw.reason, "message": node.flaw.message},
        "since": _time(node.since),
        "version": node.version or None,
        "backend": node.backend or None,
        "lacks": list(node.lacks),
        "conflist": {"directory": node.directory or None, "file": node.file, "form": node.form} if node.file else None,
        "repairs": repairs
        and {
            "count": repairs.count,
            "last": {"time": _time(repairs.last), "file": repairs.file, "reason": repairs.reason or None}
            if repairs.last
            else None,
        },
        "redirected": node.redirected,
        "settings": node.settings or None,
        "pod": node.pod or None,
    }


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment else None
