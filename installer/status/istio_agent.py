"""Istio's own CNI node agent, which does the same job under the same name: how to recognize and remove it. Pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from installer.controller.pod_template import CHART_VALUES
from installer.fleet.objects import annotation, pod_spec
from installer.status.model import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from installer.status.model import Object

# Of Istio's, since 1.6.
LABELS = ("operator.istio.io/component", "install.operator.istio.io/owning-resource", "istio.io/rev")
MOUNTS = ("/host/opt/cni/bin", "/host/etc/cni/net.d")  # the node's directories in Istio's agents, since 2019
CHART = "charts/istio-cni"
DEFINITIONS = f"kubectl apply --server-side --filename {CHART}/crds/"
IMAGE = "--set cni.hub=REGISTRY/PATH"
_HELM = "meta.helm.sh/release-name"  # helm annotates the objects that it owns
_MANAGED = "operator.istio.io/managed"  # istioctl labels what it applies itself
# Without the component, istioctl turns values.pilot.cni.enabled off, whatever it is given: pods would get istio-init again.
_WITHOUT_CNI = "--set components.cni.enabled=false --set unvalidatedValues.pilot.cni.enabled=true"


def is_istios(daemonset: Object) -> bool:
    """Return whether a DaemonSet named `istio-cni-node` is Istio's own rather than our chart's."""
    metadata = daemonset["metadata"]
    if annotation(daemonset, CHART_VALUES) is not None:
        return False
    if any(each in (metadata.get("labels") or {}) for each in LABELS):
        return True
    containers = pod_spec(daemonset).get("containers") or ()
    return any(mount.get("mountPath") in MOUNTS for each in containers for mount in each.get("volumeMounts") or ())


def ours(daemonsets: Sequence[Object]) -> list[Object]:
    """Return the DaemonSets of our chart."""
    return [each for each in daemonsets if not is_istios(each)]


def own_daemonset(daemonsets: Sequence[Object] | Unavailable) -> Object | None:
    """Return the DaemonSet of our chart, the oldest if there are several; None: there is none, or it is unavailable."""
    own = () if isinstance(daemonsets, Unavailable) else ours(daemonsets)
    return min(own, key=lambda each: str(each["metadata"].get("creationTimestamp")), default=None)


def istios(daemonsets: Sequence[Object]) -> list[Object]:
    """Return Istio's own DaemonSets."""
    return [each for each in daemonsets if is_istios(each)]


def title(daemonset: Object) -> str:
    """Name a DaemonSet's namespace and image: `kube-system (docker.io/istio/install-cni:1.26.0)`."""
    containers = pod_spec(daemonset).get("containers") or ()
    image = next((each.get("image") for each in containers), None)
    namespace = daemonset["metadata"]["namespace"]
    return f"{namespace} ({image})" if image else str(namespace)


def installer(daemonset: Object) -> str:
    """Name what has installed Istio's agent."""
    if owner := _sail_resource(daemonset):
        return f"the Sail operator, for IstioCNI {owner}"
    if release := _release(daemonset):
        return f"helm, as release {release}"
    return "istioctl" if _is_istioctls(daemonset) else "manifests"


def how_to_replace(daemonset: Object) -> str:
    """Describe how to replace Istio's agent with ours, if ours is not installed."""
    if not _release(daemonset):
        return f"{how_to_remove(daemonset)}. Then install the chart"
    definitions, upgrade = commands_to_replace(daemonset)
    (back,) = commands_to_return(daemonset)
    return f"To replace it in place: {definitions}, then {upgrade}; {back} brings Istio's back"


def how_to_remove(daemonset: Object) -> str:
    """Describe how to uninstall Istio's agent with the tool that installed it."""
    command = _command_to_remove(daemonset)
    if _sail_resource(daemonset) or _release(daemonset):
        return f"Uninstall it: {command}"
    if _is_istioctls(daemonset):
        return f"Uninstall it, with the IstioOperator that it was installed with as FILE: {command}"
    return f"Uninstall it with what has installed it, or: {command}"


def commands_to_replace(daemonset: Object, values: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the commands that replace Istio's agent with ours: in place, if it is a release of helm.

    `values` are options of helm, each quoted for a shell.
    """
    namespace, release = _namespace(daemonset), _release(daemonset)
    options = " ".join((f"--namespace {namespace} --reset-values", IMAGE, *values))
    if release:
        return DEFINITIONS, f"helm upgrade {shlex.quote(release)} {CHART} {options}"
    remove, install = _command_to_remove(daemonset), f"helm upgrade --install istio-cni {CHART} {options}"
    if owner := _sail_resource(daemonset):
        return DEFINITIONS, f"kubectl get istiocni {shlex.quote(owner)} --output yaml > ISTIOCNI.yaml", remove, install
    if _is_istioctls(daemonset):  # istioctl does not wait for what it deletes, and helm would find the DaemonSet there
        name = daemonset["metadata"]["name"]
        gone = f"kubectl --namespace {namespace} wait --for=delete daemonset/{name} --timeout=5m"
        return DEFINITIONS, remove, gone, install
    return DEFINITIONS, remove, install


def commands_to_return(daemonset: Object) -> tuple[str, ...]:
    """Return the commands that bring Istio's agent back after those of `commands_to_replace`."""
    namespace = _namespace(daemonset)
    if release := _release(daemonset):
        return (f"helm rollback {shlex.quote(release)} --namespace {namespace}",)
    if _sail_resource(daemonset):
        reinstall = "kubectl apply --filename ISTIOCNI.yaml"
    else:
        reinstall = f"{'istioctl install' if _is_istioctls(daemonset) else 'kubectl apply'} --filename FILE"
    return f"helm uninstall istio-cni --namespace {namespace}", reinstall


def _command_to_remove(daemonset: Object) -> str:
    namespace = _namespace(daemonset)
    if owner := _sail_resource(daemonset):
        return f"kubectl delete istiocni {shlex.quote(owner)}"
    if release := _release(daemonset):
        return f"helm uninstall {shlex.quote(release)} --namespace {namespace}"
    if _is_istioctls(daemonset):
        return f"istioctl install --filename FILE {_WITHOUT_CNI}"
    return f"kubectl --namespace {namespace} delete daemonset {daemonset['metadata']['name']}"


def _namespace(daemonset: Object) -> str:
    return str(daemonset["metadata"]["namespace"])


def _sail_resource(daemonset: Object) -> str:
    """Return the IstioCNI from which the Sail operator, which uses helm as a library, recreates the DaemonSet; or nothing."""
    owners = daemonset["metadata"].get("ownerReferences") or ()
    return next((str(each.get("name")) for each in owners if each.get("kind") == "IstioCNI"), "")


def _is_istioctls(daemonset: Object) -> bool:
    return _MANAGED in (daemonset["metadata"].get("labels") or {})


def _release(daemonset: Object) -> str:
    """Return the release of helm that the user can upgrade and roll back, unlike one of the Sail operator's; or nothing."""
    release = annotation(daemonset, _HELM) or ""
    return "" if _sail_resource(daemonset) else release
