"""Where the critical priority classes are limited to namespaces with a quota, as on GKE, the chart's pods are admitted."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.chart.conftest import Render
    from tests.chart.helm import Rendered

pytestmark = pytest.mark.apiserver

NAMESPACE = "mesh"
CRITICAL = ["system-node-critical", "system-cluster-critical"]  # that of GKE, word for word in what it answers
LIMITED = {
    "apiVersion": "apiserver.config.k8s.io/v1",
    "kind": "ResourceQuotaConfiguration",
    "limitedResources": [
        {"resource": "pods", "matchScopes": [{"scopeName": "PriorityClass", "operator": "In", "values": CRITICAL}]}
    ],
}


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An API server that limits them."""
    folder = tmp_path_factory.mktemp("limited")
    config = folder / "admission.json"
    plugins = [{"name": "ResourceQuota", "configuration": LIMITED}]
    kind = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration"}
    config.write_text(json.dumps(kind | {"plugins": plugins}))
    with Cluster(folder, options=[f"--admission-control-config-file={config}"]) as running:
        running.kubectl("create", "namespace", NAMESPACE)
        yield running


def refused(limited: Cluster, pod: Mapping[str, Any]) -> str:
    """Create a pod as what makes pods does, and return why the API server does not take it; empty: it does."""
    admin = f"--kubeconfig={limited.folder / 'admin.kubeconfig'}"
    command = limited.kubectl_command(admin, "create", "--dry-run=server", "--filename=-")
    text = json.dumps(pod)
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    return done.stderr if done.returncode else ""


def quotas(rendered: Rendered) -> list[dict[str, Any]]:
    return [each for each in rendered.objects if each["kind"] == "ResourceQuota"]


def test_gke_admits_each_pod_of_the_chart(limited: Cluster, render: Render) -> None:
    rendered = render({"platform": "gke"}, f"--namespace={NAMESPACE}")
    (job,) = [each for each in rendered.hooks if each["kind"] == "Job"]
    specs = {"agent": rendered.pod, "controller": rendered.controller, "hook": job["spec"]["template"]["spec"]}
    metadata = {"name": "a-pod", "namespace": NAMESPACE}
    pods = {of: {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec} for of, spec in specs.items()}
    for pod in pods.values():
        assert "insufficient quota to match these scopes" in refused(limited, pod)
    for quota in quotas(rendered):
        limited.kubectl("apply", "--filename=-", text=json.dumps(quota))
        hard = quota["spec"]["hard"]
        status = {"status": {"hard": hard, "used": dict.fromkeys(hard, "0")}}  # as the quota's controller does
        limited.kubectl(
            "patch", "resourcequota", quota["metadata"]["name"], f"--namespace={NAMESPACE}", "--subresource=status",
            "--type=merge", f"--patch={json.dumps(status)}",
        )  # fmt: skip
    assert {of: refused(limited, pod) for of, pod in pods.items()} == dict.fromkeys(pods, "")


def test_the_quota_covers_only_the_priority_classes_of_the_charts_pods(render: Render) -> None:
    for enabled in (True, False):
        rendered = render({"platform": "gke", "cni": {"controller": {"enabled": enabled}}})
        made = [*rendered.objects, *rendered.hooks]
        workloads = [each for each in made if each["kind"] in ("DaemonSet", "Deployment", "Job")]
        classes = {each["spec"]["template"]["spec"]["priorityClassName"] for each in workloads}
        scopes = [scope for each in quotas(rendered) for scope in each["spec"]["scopeSelector"]["matchExpressions"]]
        assert {each["operator"] for each in scopes} == {"In"}
        assert sorted(value for each in scopes for value in each["values"]) == sorted(classes)
