"""What `install-cni explain` and `trace` ask a cluster, with the credentials of whoever calls them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from installer.config.settings import DECIDING, declarations
from installer.explain.effective_settings import ENVIRONMENT, InForce, Layer, charts, overruled, refined
from installer.kube.names import DAEMONSET
from installer.pods.manifest import Found
from installer.pods.pod_specs import PodManifest
from installer.status.access import Access, Source, UnreachableError, sources
from installer.status.collect import namespace_of
from installer.status.model import Cause, Unavailable
from installer.status.rights import to_ask_for
from plugin.pod import ManifestError, Pod

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path


def ask(
    kubeconfig: Path | None, context: str | None, namespace: str, name: str, given: Mapping[str, Any]
) -> tuple[Found, InForce]:
    """Ask for a pod, and for the settings in force.

    Args:
        kubeconfig: as `Access` takes it.
        context: the same.
        namespace: the pod's.
        name: the pod's.
        given: what the command line says, values by the settings' names.

    Raises:
        click.ClickException: with what was seen, what was expected and what to do.
    """
    try:
        access = Access(kubeconfig, context)
        return _pod(access, namespace, name), overruled(_in_force(access, given), given)
    except (UnreachableError, ManifestError) as error:
        raise click.ClickException(str(error)) from error


def _pod(access: Access, namespace: str, name: str) -> Found:
    got = access.got(Source("pods", f"/api/v1/namespaces/{namespace}/pods/{name}", {}, namespace))
    if not isinstance(got, Unavailable):
        pod = Pod.from_manifest(got)
        return Found(PodManifest(got, "Pod"), pod, _handler(access, pod.runtime_class))
    if got.cause is Cause.NO_DEFINITION:
        raise click.ClickException(f"the cluster has no pod {namespace}/{name}")
    expected = f", expected the right to get pods in namespace {namespace}" if got.cause is Cause.FORBIDDEN else ""
    raise click.ClickException(f"pod {namespace}/{name}: {got.message}{expected}")


def _handler(access: Access, runtime_class: str) -> str:
    """Ask which handler of the runtime a RuntimeClass stands for; empty if it has none, or nobody may say."""
    if not runtime_class:
        return ""
    got = access.got(Source("runtimeclasses", f"/apis/node.k8s.io/v1/runtimeclasses/{runtime_class}", {}, ""))
    return "" if isinstance(got, Unavailable) else str(got.get("handler", ""))


def _in_force(access: Access, given: Collection[str]) -> InForce:
    warnings = []
    layers = [Layer(ENVIRONMENT, os.environ)]  # in an agent's pod it has all of the chart's
    known = {each.name for each in declarations() if each.variable in os.environ}
    if not known.union(given).issuperset(DECIDING):
        chart = _chart(access)
        if isinstance(chart, str):
            warnings.append(
                f"the chart's settings cannot be read ({chart}): the defaults are taken for them. Give those that "
                "differ as options, or run this in an agent's pod"
            )
        else:
            layers.insert(0, chart)
    planes = access.listed(sources(None)["planes"])
    if isinstance(planes, Unavailable):
        warnings.append(_without_planes(planes))
    made = charts(layers, warnings)
    return made if isinstance(planes, Unavailable) else refined(made, planes.objects)


def _chart(access: Access) -> Layer | str:
    """Find the agents' ConfigMap beside their DaemonSet; or say why not."""
    daemonsets = access.listed(sources(None)["daemonsets"])
    if isinstance(daemonsets, Unavailable):
        return daemonsets.message
    namespace = namespace_of(daemonsets.objects)
    if namespace is None:
        return f"the cluster has no DaemonSet {DAEMONSET}"
    path = f"/api/v1/namespaces/{namespace}/configmaps/{DAEMONSET}"
    got = access.got(Source("configmaps", path, {}, namespace))
    if isinstance(got, Unavailable):
        return got.message
    return Layer(f"ConfigMap {namespace}/{DAEMONSET}", got.get("data") or {})


def _without_planes(planes: Unavailable) -> str:
    if planes.cause is Cause.NO_DEFINITION:
        return f"the cluster does not know {planes.resource}: no IstioControlPlane counts, the chart's settings do"
    what_to_do = f" {to_ask_for([planes])}" if planes.cause is Cause.FORBIDDEN else ""
    return (
        f"the IstioControlPlanes cannot be listed ({planes.message}): what the one that counts says is not seen here, "
        f"the chart's settings are taken for it.{what_to_do}"
    )
