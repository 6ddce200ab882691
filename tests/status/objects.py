"""Objects of a cluster as agents, controller and Kubernetes write them, and as the API server answers with them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from installer.status import summary as judging
from installer.status.model import Answers

if TYPE_CHECKING:
    from installer.status.model import ClusterStatus, Object

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
NAMESPACE = "istio-system"
TEMPLATE = "3"  # the generation of the DaemonSet's template


def ago(**since: float) -> str:
    return (NOW - timedelta(**since)).isoformat().replace("+00:00", "Z")


def plane(
    name: str = "istio",
    *,
    cni: dict[str, Any] | None = None,
    enabled: bool = True,
    created: str = "",
    generation: int = 2,
    observed: int | None = None,
    status: str = "HEALTHY",
    said: dict[str, str] | None = None,
    conditions: list[dict[str, str]] | None = None,
    **metadata: Any,
) -> Object:
    return {
        "metadata": {
            "namespace": NAMESPACE,
            "name": name,
            "uid": f"uid-of-{name}",
            "generation": generation,
            "creationTimestamp": created or ago(days=5),
            "managedFields": [{"manager": "kubectl", "operation": "Update", "time": ago(seconds=20)}],
            **metadata,
        },
        "spec": {"cni": {"enabled": enabled}, "values": {"cni": cni or {}}},
        "status": {
            "conditions": conditions or [],
            "observedGeneration": generation if observed is None else observed,
            "status": {"cni": {"status": status, "version": "0.1.0", **(said or {})}},
        },
    }


def report(
    name: str,
    *,
    state: str = "Installed",
    ready: str = "True",
    reason: str = "Redirecting",
    message: str = "the plugin is installed",
    settings: tuple[str, int] | None = ("istio", 2),
    version: str = "0.1.0",
    **status: Any,
) -> Object:
    made: dict[str, Any] = {
        "state": state,
        "version": version,
        "backend": {"name": "nft"},
        "conflist": {"directory": "/etc/cni/net.d", "file": "10-calico.conflist", "form": "Chained"},
        "repairs": {"count": 0},
        "pods": {"redirected": 12},
        "conditions": [
            {
                "type": "Ready",
                "status": ready,
                "reason": reason,
                "message": message,
                "lastTransitionTime": ago(hours=3, minutes=20),
            }
        ],
    }
    if settings:
        plane_name, generation = settings
        made["controlPlane"] = {
            "namespace": NAMESPACE,
            "name": plane_name,
            "uid": f"uid-of-{plane_name}",
            "generation": generation,
        }
    if state != "Installed":
        del made["conflist"]
    return {"metadata": {"name": name}, "status": made | status}


def never_reported(name: str, reason: str, message: str) -> Object:
    """An IstioCNINode in which the controller has said why no agent runs."""
    only = report(name, ready="False", reason=reason, message=message)
    return {**only, "status": {"conditions": only["status"]["conditions"]}}


def node(
    name: str,
    status: str = "Ready",
    system: str = "linux",
    *,
    created: str = "",
    taints: list[dict[str, str]] | None = None,
) -> Object:
    ready = {
        "type": "Ready",
        "status": "True" if status.startswith("Ready") else "Unknown",
        "lastTransitionTime": ago(hours=2),
    }
    labels = {"kubernetes.io/os": system}
    return {
        "metadata": {"name": name, "labels": labels, "creationTimestamp": created or ago(days=9)},
        "spec": {"taints": taints or []},
        "status": {"conditions": [ready]},
    }


def pod(
    on: str,
    status: str = "Running",
    ready: str = "1/1",
    *,
    generation: str = TEMPLATE,
    changed: str = "",
    **metadata: Any,
) -> Object:
    """An agent's pod, of which kubectl prints this; `changed` is when it became ready or lost that."""
    made = {
        "namespace": NAMESPACE,
        "name": f"istio-cni-node-{on}",
        "creationTimestamp": ago(days=1),
        "labels": {"pod-template-generation": generation},
        **metadata,
    }
    is_ready = "True" if ready == "1/1" else "False"
    state = {"running": {}} if status in ("Running", "Terminating") else {"waiting": {"reason": status}}
    since = {"lastTransitionTime": changed or made["creationTimestamp"]}
    return {
        "metadata": made,
        "spec": {"nodeName": on},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": is_ready, **since}],
            "containerStatuses": [{"name": "install-cni", "state": state}],
        },
    }


def istios_daemonset(
    namespace: str = "kube-system", *, helm: str = "istio-cni", labels: dict[str, str] | None = None, **metadata: Any
) -> Object:
    """The DaemonSet of Istio's own chart 1.26, as helm has installed it."""
    own = {"k8s-app": "istio-cni-node", "app.kubernetes.io/name": "istio-cni"}
    mounts = ("/host/opt/cni/bin", "/host/proc", "/host/etc/cni/net.d", "/var/run/istio-cni")
    container = {
        "name": "install-cni",
        "image": "docker.io/istio/install-cni:1.26.0",
        "command": ["install-cni"],
        "volumeMounts": [{"name": f"volume-{index}", "mountPath": each} for index, each in enumerate(mounts)],
    }
    volumes = [{"name": f"volume-{index}", "emptyDir": {}} for index, _ in enumerate(mounts)]
    more = {"release": "istio-cni", "istio.io/rev": "default", "operator.istio.io/component": "Cni"}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "namespace": namespace,
            "name": "istio-cni-node",
            "labels": own | (more if labels is None else labels),
            **({"annotations": {"meta.helm.sh/release-name": helm}} if helm else {}),
            **metadata,
        },
        "spec": {
            "selector": {"matchLabels": {"k8s-app": "istio-cni-node"}},
            "template": {
                "metadata": {"labels": own},
                "spec": {"containers": [container], "volumes": volumes, "nodeSelector": {"kubernetes.io/os": "linux"}},
            },
        },
    }


def daemonset(
    nodes: int = 3,
    *,
    updated: int | None = None,
    unavailable: int = 0,
    at_most: int | str = 1,
    selector: dict[str, str] | None = None,
    **metadata: Any,
) -> Object:
    return {
        "metadata": {
            "namespace": NAMESPACE,
            "name": "istio-cni-node",
            "generation": 3,
            "creationTimestamp": ago(days=30),
            "annotations": {"deprecated.daemonset.template.generation": TEMPLATE},
            **metadata,
        },
        "spec": {
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": at_most}},
            "template": {
                "spec": {
                    "nodeSelector": selector or {"kubernetes.io/os": "linux"},
                    "containers": [{"name": "install-cni", "image": "registry.example/istio/install-cni:0.1.0"}],
                }
            },
        },
        "status": {
            "observedGeneration": 3,
            "desiredNumberScheduled": nodes,
            "numberReady": nodes - unavailable,
            "numberUnavailable": unavailable,
            "updatedNumberScheduled": nodes if updated is None else updated,
        },
    }


def controller(available: int = 1) -> Object:
    return {
        "metadata": {"namespace": NAMESPACE, "name": "istio-cni-controller"},
        "status": {"availableReplicas": available},
    }


NAMES = ("node-1", "node-2", "node-3")


def answers(**changed: Any) -> Answers:
    """A cluster of three nodes, on which all is well, but for what is changed."""
    well: dict[str, Any] = {
        "planes": [plane()],
        "reports": [report(each) for each in NAMES],
        "nodes": [node(each) for each in NAMES],
        "daemonsets": [daemonset()],
        "pods": [pod(each) for each in NAMES],
        "controllers": [controller()],
    }
    return Answers(**well | changed)


def summarize(found: Answers, now: datetime = NOW) -> ClusterStatus:
    return judging.summarize(found, now)


def instead(of: list[Object], *others: Object) -> list[Object]:
    """Replace objects by others of their names."""
    names = {each["metadata"]["name"]: each for each in others}
    return [names.get(each["metadata"]["name"], each) for each in of]
