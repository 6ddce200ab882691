"""Istio's own CNI node agent, which does the same job under the same name: how to recognize and remove it. Pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from installer.controller.pod_template import CHART_VALUES
from installer.fleet.objects import pod_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from installer.status.model import Object

LABELS = (
    "operator.istio.io/component",
    "install.operator.istio.io/owning-resource",
    "istio.io/rev",
)  # of Istio's, since 1.6
MOUNTS = ("/host/opt/cni/bin", "/host/etc/cni/net.d")  # the node's directories in Istio's agents, since 2019
_HELM = "meta.helm.sh/release-name"  # helm annotates the objects that it owns


def is_istios(daemonset: Object) -> bool:
    """Return whether a DaemonSet named `istio-cni-node` is Istio's own rather than our chart's."""
    metadata = daemonset["metadata"]
    if CHART_VALUES in (metadata.get("annotations") or {}):
        return False
    if any(each in (metadata.get("labels") or {}) for each in LABELS):
        return True
    containers = pod_spec(daemonset).get("containers") or ()
    return any(mount.get("mountPath") in MOUNTS for each in containers for mount in each.get("volumeMounts") or ())


def ours(daemonsets: Sequence[Object]) -> list[Object]:
    """Return the DaemonSets of our chart."""
    return [each for each in daemonsets if not is_istios(each)]


def istios(daemonsets: Sequence[Object]) -> list[Object]:
    """Return Istio's own DaemonSets."""
    return [each for each in daemonsets if is_istios(each)]


def title(daemonset: Object) -> str:
    """Name a DaemonSet's namespace and image: `kube-system (docker.io/istio/install-cni:1.26.0)`."""
    containers = pod_spec(daemonset).get("containers") or ()
    image = next((each.get("image") for each in containers), None)
    namespace = daemonset["metadata"]["namespace"]
    return f"{namespace} ({image})" if image else str(namespace)


def how_to_replace(daemonset: Object) -> str:
    """Describe how to replace Istio's agent with ours, if ours is not installed."""
    namespace, release = daemonset["metadata"]["namespace"], _release(daemonset)
    if release:
        return (
            "To replace it in place: kubectl apply --server-side --filename charts/istio-cni/crds/, then helm upgrade "
            f"{shlex.quote(release)} charts/istio-cni --namespace {namespace} --reset-values --set cni.hub=REGISTRY/PATH; "
            f"helm rollback {shlex.quote(release)} --namespace {namespace} brings Istio's back"
        )
    return f"{how_to_remove(daemonset)}. Then install the chart"


def how_to_remove(daemonset: Object) -> str:
    """Describe how to uninstall Istio's agent with the tool that installed it."""
    namespace, release = daemonset["metadata"]["namespace"], _release(daemonset)
    if release:
        return f"Uninstall it: helm uninstall {shlex.quote(release)} --namespace {namespace}"
    for owner in daemonset["metadata"].get("ownerReferences") or ():
        if owner.get("kind") == "IstioCNI":  # of the Sail operator, which would recreate it
            return f"Uninstall it: kubectl delete istiocni {owner.get('name')}"
    return (
        "Uninstall it with what has installed it (istioctl: components.cni.enabled=false), or: "
        f"kubectl --namespace {namespace} delete daemonset {daemonset['metadata']['name']}"
    )


def _release(daemonset: Object) -> str:
    return str((daemonset["metadata"].get("annotations") or {}).get(_HELM, ""))
