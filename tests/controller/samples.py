"""What the controller sees of a node, a resource and the DaemonSet, all well; each test changes what it is about."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from installer.controller.pod_template import CHART_VALUES
from installer.fleet import objects
from installer.fleet.objects import AgentPod, Node, Report, Settings
from installer.kube.names import CONTROLLER, DAEMONSET

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from installer.controller.field_ownership import Field
    from installer.controller.pod_template import Wish

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(hours=1)
SETTINGS = Settings("uid-of-mesh", 3)
TEMPLATE = "7"
NODE, POD = "node1", "istio-cni-node-x1"
LINUX = {"kubernetes.io/os": "linux"}
CHARTS: dict[str, Any] = {
    "hub": "of.chart/mesh",
    "tag": "1",
    "pullPolicy": "Always",
    "podAnnotations": {"of": "chart", "chart": "alone"},
    "resources": {"requests": {"cpu": "20m", "memory": "80Mi"}},
    "cniBinDir": "/opt/cni/bin",
    "cniConfDir": "/etc/cni/net.d",
}


def node(name: str = NODE, **changed: Any) -> Node:
    metadata = {"name": name, "uid": f"uid-of-{name}", "creationTimestamp": LONG_AGO.isoformat(), "labels": LINUX}
    return replace(objects.read_node({"metadata": metadata}), **changed)


def report(name: str = NODE, **changed: Any) -> Report:
    condition = {"type": "Ready", "status": "True", "reason": "Redirecting", "message": "well"}
    status = {
        "state": "Installed",
        "version": "0.1.0",
        "controlPlane": SETTINGS._asdict(),
        "conditions": [condition | {"lastTransitionTime": LONG_AGO.isoformat()}],
    }
    return replace(objects.read_report({"metadata": {"name": name}, "status": status}), **changed)


def pod(name: str = POD, **changed: Any) -> AgentPod:
    metadata = {"name": name, "uid": f"uid-of-{name}", "labels": {objects.TEMPLATE_GENERATION: TEMPLATE}}
    manifest = {
        "metadata": metadata | {"creationTimestamp": LONG_AGO.isoformat()},
        "spec": {"nodeName": NODE},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    return replace(objects.read_agent_pod(manifest), **changed)


def unready(reason: str, message: str = "", **changed: Any) -> AgentPod:
    return pod(ready=False, reason=reason, message=message, **changed)


def resource(name: str = "mesh", *, created: int = 1, terminating: bool = False, **spec: Any) -> dict[str, Any]:
    """Make an IstioControlPlane, created on a day of January."""
    metadata = {
        "namespace": "mesh",
        "name": name,
        "uid": f"uid-of-{name}",
        "generation": SETTINGS.generation,
        "creationTimestamp": f"2026-01-{created:02}T00:00:00Z",
    }
    return {"metadata": metadata | ({"deletionTimestamp": "2026-02-01T00:00:00Z"} if terminating else {}), "spec": spec}


def daemonset(wished: Wish | None = None, *, chart: str | None = json.dumps(CHARTS)) -> dict[str, Any]:
    """Make the DaemonSet as the chart has it.

    Args:
        wished: what the controller has written of it.
        chart: what its annotation of chart values says; None: it has none.
    """
    annotations = {"deprecated.daemonset.template.generation": TEMPLATE} | ({CHART_VALUES: chart} if chart else {})
    container = {
        "name": objects.CONTAINER,
        "image": "of.chart/mesh/install-cni:1",
        "imagePullPolicy": "Always",
        "resources": CHARTS["resources"],
        "env": [
            {"name": "NODE_NAME", "valueFrom": {}},
            {"name": "CNI_BIN_DIR", "value": "/opt/cni/bin"},
            {"name": "CNI_CONF_DIR", "value": "/etc/cni/net.d"},
        ],
        "securityContext": {"readOnlyRootFilesystem": True},
    }
    volumes = [
        {"name": "netns-dir"},
        {"name": "cni-bin-dir", "hostPath": {"path": "/opt/cni/bin", "type": "Directory"}},
        {"name": "cni-conf-dir", "hostPath": {"path": "/etc/cni/net.d", "type": "Directory"}},
    ]
    spec = {"containers": [container], "volumes": volumes, "nodeSelector": LINUX}
    of_pods = {"annotations": CHARTS["podAnnotations"]}
    made = {
        "metadata": {"namespace": "mesh", "name": DAEMONSET, "annotations": annotations},
        "spec": {"template": {"metadata": of_pods, "spec": spec}},
    }
    return written(made, wished) if wished else deepcopy(made)


def written(seen: Mapping[str, Any], wished: Wish) -> dict[str, Any]:
    """Make of the DaemonSet what it is when the controller has written it. What nobody owns any more stays, unlike there."""
    manifest = deepcopy(wished.manifest(seen))
    made: dict[str, Any] = _applied(seen, manifest)
    selector = manifest["spec"]["template"]["spec"].get("nodeSelector") if "spec" in manifest else None
    if selector is not None:
        made["spec"]["template"]["spec"]["nodeSelector"] = selector  # one value
    made["metadata"]["managedFields"] = [owner(CONTROLLER, wished.own)]
    return made


def owner(manager: str, owned: Iterable[Field], operation: str = "Apply") -> dict[str, Any]:
    """Make the entry of managedFields by which a manager owns fields."""
    tree: dict[str, Any] = {}
    for field in owned:
        at = tree
        for step in field:
            at = at.setdefault(step, {".": {}, "f:name": {}} if step.startswith("k:") else {})
    return {"manager": manager, "operation": operation, "fieldsV1": tree}


def _applied(seen: Any, wanted: Any) -> Any:
    """Do as a server-side apply does: mappings by key, lists of what has a name by that."""
    if isinstance(seen, dict) and isinstance(wanted, dict):
        return seen | {key: _applied(seen.get(key), each) for key, each in wanted.items()}
    if isinstance(seen, list) and isinstance(wanted, list):
        by_name = {each["name"]: each for each in seen}
        return [*(by_name | {each["name"]: _applied(by_name.get(each["name"]), each) for each in wanted}).values()]
    return wanted
