"""Istio's own CNI node agent, whose DaemonSet has the name of ours (W22): it is told from ours and named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from installer.status.model import Health, Severity
from tests.status.objects import NAMESPACE, ago, answers, daemonset, istios_daemonset, summarize

if TYPE_CHECKING:
    from installer.status.model import ClusterStatus, Finding, Object

pytestmark = pytest.mark.pure

IMAGE = "docker.io/istio/install-cni:1.26.0"


def about_it(found: ClusterStatus) -> Finding:
    (only,) = [each for each in found.findings if each.severity is Severity.ERROR]
    assert only.message.startswith(f"Istio's own CNI node agent is installed in kube-system ({IMAGE})")
    return only


@pytest.mark.parametrize("older", [True, False], ids=["before ours", "after ours"])
def test_istio_agent_beside_ours_is_an_error_and_not_counted(older: bool) -> None:
    theirs = istios_daemonset(creationTimestamp=ago(days=90 if older else 1))
    found = summarize(answers(daemonsets=[theirs, daemonset()]))
    said = about_it(found)
    assert f"beside this chart's in {NAMESPACE}" in said.message
    assert said.remedy == "Uninstall it: helm uninstall istio-cni --namespace kube-system"
    assert found.agents is not None
    assert (found.agents.namespace, found.agents.image) == (NAMESPACE, "registry.example/istio/install-cni:0.1.0")
    assert (found.health, len(found.healthy)) == (Health.DEGRADED, 3)


def test_istio_agent_alone_is_named_with_how_to_replace_it() -> None:
    found = summarize(
        answers(daemonsets=[istios_daemonset(helm="my-cni")], planes=[], reports=[], pods=[], controllers=[])
    )
    assert found.summary == "Not installed: the cluster has no node agents of this chart."
    assert found.agents is None
    remedy = about_it(found).remedy
    assert (
        "crds/, then helm upgrade my-cni charts/istio-cni --namespace kube-system --reset-values --set cni.hub="
        in remedy
    )


@pytest.mark.parametrize(
    ("how", "remedy"),
    [
        ({}, "helm uninstall istio-cni --namespace kube-system"),
        ({"helm": "", "ownerReferences": [{"kind": "IstioCNI", "name": "default"}]}, "kubectl delete istiocni default"),
        ({"ownerReferences": [{"kind": "IstioCNI", "name": "default"}]}, "kubectl delete istiocni default"),
        (
            {"helm": "", "labels": {"operator.istio.io/managed": "Reconcile", "operator.istio.io/component": "Cni"}},
            "istioctl install --filename FILE --set components.cni.enabled=false",
        ),
        ({"helm": ""}, "kubectl --namespace kube-system delete daemonset istio-cni-node"),
        ({"labels": {}}, "helm uninstall istio-cni --namespace kube-system"),  # of 2019, or relabelled: by its mounts
    ],
    ids=["helm", "Sail operator", "Sail operator, as a helm of its own", "istioctl", "manifests", "without labels"],
)
def test_each_installer_of_istios_agent_has_its_remedy(how: dict[str, Any], remedy: str) -> None:
    found = summarize(answers(daemonsets=[istios_daemonset(**how), daemonset()]))
    assert remedy in about_it(found).remedy


def test_our_release_over_istios_is_ours() -> None:
    left = istios_daemonset()["metadata"]["labels"]
    over: Object = daemonset(labels=left, annotations={"cni.istio.io/chart-values": "{}"})
    assert summarize(answers(daemonsets=[over])).health is Health.HEALTHY


def test_two_releases_of_this_chart_are_not_istios() -> None:
    found = summarize(answers(daemonsets=[daemonset(), daemonset(namespace="other")]))
    assert any("exists more than once" in each.message for each in found.findings)
