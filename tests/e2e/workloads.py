"""What users deploy: an application under Pod Security `restricted`, as it is or as the mesh's injector leaves it."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.envoyimage import ENVOY
from tests.support import envoy
from tests.support.images import APP

PORT = 8080
STATUS = 15021  # where the mesh's sidecars answer health checks: no redirect touches it
_LISTENS = {"tcpSocket": {"port": PORT}}
# The application is found ready as soon as it is; later it is asked as seldom as users' are, which a run pays for.
_PROBES = {"startupProbe": {**_LISTENS, "periodSeconds": 1, "failureThreshold": 600}, "readinessProbe": _LISTENS}
UNPROBED = dict.fromkeys(_PROBES)  # of a container that nobody asks


def namespace(name: str, *, level: str = "restricted") -> dict[str, Any]:
    """Make a namespace that holds its pods to a level of Pod Security."""
    labels = {"pod-security.kubernetes.io/enforce": level}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def deployment(name: str, where: str, *, injected: bool) -> dict[str, Any]:
    """Make a Deployment of one pod of the application; injected: with Envoy as a native sidecar."""
    pod: dict[str, Any] = {
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "containers": [
            {
                "name": "app",
                "image": APP,
                "command": ["/web", name, str(PORT)],
                "ports": [{"containerPort": PORT}],
                "securityContext": _restricted(1000),
            }
            | _PROBES
        ],
    }
    annotations = {}
    if injected:
        annotations = {
            "sidecar.istio.io/status": "{}",
            "traffic.sidecar.istio.io/includeInboundPorts": "*",  # as injectors write it
        }
        pod["initContainers"] = [_sidecar()]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": where},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}, "annotations": annotations}, "spec": pod},
        },
    }


def hasty(name: str, where: str, address: str) -> dict[str, Any]:
    """Make an injected Deployment with an init container that asks this address before the sidecar is up."""
    made = deployment(name, where, injected=True)
    first = {"name": "fetch", "image": APP, "command": ["/get", address], "securityContext": _restricted(1000)}
    made["spec"]["template"]["spec"]["initContainers"].insert(0, first)
    return made


def service(name: str, where: str) -> dict[str, Any]:
    """Make the Service of a Deployment of that name."""
    spec = {"selector": {"app": name}, "ports": [{"name": "tcp-web", "port": 80, "targetPort": PORT}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": where}, "spec": spec}


def _sidecar() -> dict[str, Any]:
    arguments = ["--config-yaml", json.dumps(_bootstrap()), "--concurrency", "1", "--disable-hot-restart"]
    return {
        "name": "istio-proxy",
        "image": ENVOY,
        "args": arguments,
        "restartPolicy": "Always",
        "startupProbe": {"httpGet": {"path": "/ready", "port": STATUS}, "periodSeconds": 1, "failureThreshold": 30},
        "securityContext": _restricted(envoy.UID),
    }


def _bootstrap() -> dict[str, Any]:
    """Make Envoy's configuration: that of the other tests, and its admin interface on the status port."""
    made = envoy.bootstrap()
    proxy = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "status",
        "cluster": "admin",
    }
    listener = {
        "name": "status",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": STATUS}},  # noqa: S104 - the kubelet asks there
        "filter_chains": [{"filters": [{"name": "tcp_proxy", "typed_config": proxy}]}],
    }
    admin = {"endpoint": {"address": made["admin"]["address"]}}
    endpoints = {"cluster_name": "admin", "endpoints": [{"lb_endpoints": [admin]}]}
    made["static_resources"]["listeners"].append(listener)
    made["static_resources"]["clusters"].append({"name": "admin", "type": "STATIC", "load_assignment": endpoints})
    return made


def _restricted(uid: int) -> dict[str, Any]:
    """Say as little as `restricted` wants to hear."""
    return {
        "runAsNonRoot": True,
        "runAsUser": uid,
        "runAsGroup": uid,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
