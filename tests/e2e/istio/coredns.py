"""The cluster's DNS: what Kubernetes' installers deploy, on the first node."""

from __future__ import annotations

from typing import Any

from tests.e2e.istio.images import COREDNS
from tests.support.nodeconfig import DNS, DNS6, FIRST

NAMESPACE = "kube-system"
_COREFILE = """\
.:53 {
    errors
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
    }
    cache 5
}
"""
_NAME = {"name": "coredns", "namespace": NAMESPACE}
_LABELS = {"k8s-app": "kube-dns"}


def objects() -> list[dict[str, Any]]:
    """Make the objects of a deployment."""
    rules = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "coredns"}
    ports = [{"name": f"dns-{kind.lower()}", "port": 53, "protocol": kind} for kind in ("UDP", "TCP")]
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _NAME},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _NAME, "data": {"Corefile": _COREFILE}},
        _rbac("ClusterRole") | {"rules": rules},
        _rbac("ClusterRoleBinding") | {"roleRef": role, "subjects": [{"kind": "ServiceAccount", **_NAME}]},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": NAMESPACE},
            "spec": {
                "clusterIP": DNS,
                "clusterIPs": [DNS, DNS6],
                "ipFamilyPolicy": "RequireDualStack",
                "selector": _LABELS,
                "ports": ports,
            },
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": _NAME,
            "spec": {
                "selector": {"matchLabels": _LABELS},
                "template": {"metadata": {"labels": _LABELS}, "spec": _pod()},
            },
        },
    ]


def _pod() -> dict[str, Any]:
    return {
        "serviceAccountName": "coredns",
        "dnsPolicy": "Default",
        "nodeSelector": {"kubernetes.io/hostname": FIRST.name},
        "containers": [
            {
                "name": "coredns",
                "image": COREDNS,
                "args": ["-conf", "/etc/coredns/Corefile"],
                "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
                "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
            }
        ],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    }


def _rbac(kind: str) -> dict[str, Any]:
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": "coredns"}}
