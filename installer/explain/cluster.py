"""What `install-cni explain` and `trace` read from a cluster, with the caller's credentials."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from installer.config.settings import DECIDING, declarations
from installer.documents.objects import mapping
from installer.explain.effective_settings import (
    ENVIRONMENT,
    EffectiveSettings,
    Layer,
    apply_control_planes,
    apply_options,
    layer_settings,
)
from installer.fleet.objects import pod_spec
from installer.kube.names import DAEMONSET
from installer.pods.manifest import Found
from installer.pods.pod_specs import PodManifest
from installer.status.access import Access, Source, UnreachableError, sources
from installer.status.grants import grant_commands
from installer.status.istio_agent import own_daemonset
from installer.status.model import Cause, Unavailable
from plugin.pod import ManifestError, Pod

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path


def read_pod_and_settings(
    kubeconfig: Path | None, context: str | None, namespace: str, name: str, given: Mapping[str, Any]
) -> tuple[Found, EffectiveSettings]:
    """Read a pod and the settings in force.

    `given` are options of the command line: values by the settings' names.

    Raises:
        click.ClickException: with what was seen, what was expected and what to do.
    """
    try:
        access = Access(kubeconfig, context)
        return _pod(access, namespace, name), apply_options(_fetch_effective(access, given), given)
    except (UnreachableError, ManifestError) as error:
        raise click.ClickException(str(error)) from error


def _pod(access: Access, namespace: str, name: str) -> Found:
    answer = access.got(Source("pods", f"/api/v1/namespaces/{namespace}/pods/{name}", {}, namespace))
    if not isinstance(answer, Unavailable):
        pod = Pod.from_manifest(answer)
        return Found(PodManifest(answer, "Pod"), pod, _handler(access, pod.runtime_class))
    if answer.cause is Cause.NO_DEFINITION:
        raise click.ClickException(f"the cluster has no pod {namespace}/{name}")
    expected = f", expected the right to get pods in namespace {namespace}" if answer.cause is Cause.FORBIDDEN else ""
    raise click.ClickException(f"pod {namespace}/{name}: {answer.message}{expected}")


def _handler(access: Access, runtime_class: str) -> str:
    """Read the runtime handler of a RuntimeClass; empty if it has none or cannot be read."""
    if not runtime_class:
        return ""
    answer = access.got(Source("runtimeclasses", f"/apis/node.k8s.io/v1/runtimeclasses/{runtime_class}", {}, ""))
    return "" if isinstance(answer, Unavailable) else str(answer.get("handler", ""))


def _fetch_effective(access: Access, given: Collection[str]) -> EffectiveSettings:
    warnings = []
    layers = [Layer(ENVIRONMENT, os.environ)]  # in an agent's pod it has all settings of the chart
    known = {each.name for each in declarations() if each.variable in os.environ}
    if not known.union(given).issuperset(DECIDING):
        chart = _chart(access)
        if isinstance(chart, str):
            warnings.append(
                f"cannot read the chart's settings ({chart}); assuming the defaults. Set those that differ as options, or "
                "run this in an agent's pod"
            )
        else:
            layers.insert(0, chart)
    planes = access.listed(sources(None)["planes"])
    if isinstance(planes, Unavailable):
        warnings.append(_explain_missing_planes(planes))
    effective = layer_settings(layers, warnings)
    return effective if isinstance(planes, Unavailable) else apply_control_planes(effective, planes.objects)


def _chart(access: Access) -> Layer | str:
    """Read the settings of the agents' DaemonSet; or return why that fails."""
    daemonsets = access.listed(sources(None)["daemonsets"])
    if isinstance(daemonsets, Unavailable):
        return daemonsets.message
    daemonset = own_daemonset(daemonsets.objects)
    if daemonset is None:
        return f"the cluster has no DaemonSet {DAEMONSET}"
    containers = pod_spec(daemonset).get("containers") or [{}]
    environment = (mapping(each) for each in mapping(containers[0]).get("env") or ())
    literal = {str(each.get("name")): str(each["value"]) for each in environment if "value" in each}
    return Layer(f"DaemonSet {daemonset['metadata']['namespace']}/{DAEMONSET}", literal)


def _explain_missing_planes(planes: Unavailable) -> str:
    if planes.cause is Cause.NO_DEFINITION:
        return f"the cluster has no definition of {planes.resource}: the chart's settings are in force"
    what_to_do = f" {grant_commands([planes])}" if planes.cause is Cause.FORBIDDEN else ""
    return (
        f"cannot list the IstioControlPlanes ({planes.message}); assuming the chart's settings, which the active one may "
        f"change.{what_to_do}"
    )
