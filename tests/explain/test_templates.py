"""Where the pod template of an object is: found by its shape, whatever the kind; what has none is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from installer.pods.manifest import Found, read
from installer.pods.pod_specs import DEEPEST_TEMPLATE, Other
from plugin.pod import ManifestError
from tests.explain.test_command import install_cni

pytestmark = pytest.mark.pure

STATUS = {"sidecar.istio.io/status": "{}"}
PORTS = "traffic.sidecar.istio.io/excludeOutboundPorts"
NAMED = {"name": "web", "namespace": "shop"}


def template(port: str = "22", **metadata: object) -> dict[str, Any]:
    """Make the template of a mesh pod whose annotations are told from all others by a port."""
    containers = [{"name": "app", "ports": [{"containerPort": 8080}]}, {"name": "istio-proxy"}]
    return {"metadata": {"annotations": STATUS | {PORTS: port}, **metadata}, "spec": {"containers": containers}}


def thing(api: str, kind: str, spec: object, **more: object) -> dict[str, Any]:
    """Make an object; its own annotations are not its pods'."""
    metadata = NAMED | {"annotations": STATUS | {PORTS: "1"}}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec, **more}


POD = {"apiVersion": "v1", "kind": "Pod", **template(**NAMED)}
DEPLOYMENT = thing("apps/v1", "Deployment", {"template": template()})
# Kinds as their projects document them: the paths at which their pod templates are.
ONE = {
    "Deployment": DEPLOYMENT,
    "Deployment of extensions": thing("extensions/v1beta1", "Deployment", {"template": template()}),
    "ReplicationController": thing("v1", "ReplicationController", {"template": template()}),
    "PodTemplate": {"apiVersion": "v1", "kind": "PodTemplate", "metadata": NAMED, "template": template()},
    "CronJob": thing("batch/v1", "CronJob", {"jobTemplate": {"spec": {"template": template()}}}),
    "CronJob, v1beta1": thing(
        "batch/v1beta1",
        "CronJob",
        {"jobTemplate": {"metadata": {"annotations": STATUS | {PORTS: "2"}}, "spec": {"template": template()}}},
    ),
    "no apiVersion": {"kind": "Rollout", "metadata": NAMED, "spec": {"template": template()}},
    "Argo Rollout": thing("argoproj.io/v1alpha1", "Rollout", {"replicas": 2, "strategy": {}, "template": template()}),
    "DeploymentConfig": thing("apps.openshift.io/v1", "DeploymentConfig", {"template": template()}),
    "Knative Service": thing("serving.knative.dev/v1", "Service", {"template": template(name="web-00001")}),
    "Knative Configuration": thing("serving.knative.dev/v1", "Configuration", {"template": template()}),
    "CloneSet": thing("apps.kruise.io/v1alpha1", "CloneSet", {"template": template()}),
    "Advanced StatefulSet": thing("apps.kruise.io/v1beta1", "StatefulSet", {"template": template()}),
    "AdvancedCronJob": thing(
        "apps.kruise.io/v1alpha1",
        "AdvancedCronJob",
        {"template": {"broadcastJobTemplate": {"spec": {"template": template()}}}},
    ),
    "UnitedDeployment": thing(
        "apps.kruise.io/v1alpha1",
        "UnitedDeployment",
        {"template": {"statefulSetTemplate": {"spec": {"template": template()}}}},
    ),
    "JobSet": thing(
        "jobset.x-k8s.io/v1alpha2",
        "JobSet",
        {"replicatedJobs": [{"name": "w", "template": {"spec": {"template": template()}}}]},
    ),
    "Volcano Job": thing("batch.volcano.sh/v1alpha1", "Job", {"tasks": [{"name": "t", "template": template()}]}),
    "ScaledJob": thing("keda.sh/v1alpha1", "ScaledJob", {"jobTargetRef": {"template": template()}}),
    "Fleet": thing("agones.dev/v1", "Fleet", {"template": {"spec": {"template": template()}}}),
    "FlinkDeployment": thing(
        "flink.apache.org/v1beta1",
        "FlinkDeployment",
        {"podTemplate": {"apiVersion": "v1", "kind": "Pod", **template(name="pod-template")}},
    ),
    "Sandbox": thing("agents.x-k8s.io/v1alpha1", "Sandbox", {"podTemplate": template()}),
    "FederatedDeployment": thing(
        "types.kubefed.io/v1beta1",
        "FederatedDeployment",
        {"template": {"metadata": {}, "spec": {"template": template()}}},
    ),
    "a kind of nobody": thing("example.org/v1", "Widget", {"a": [{"b": {"c": [1, None, {"d": template()}]}}]}),
    "ManifestWork": thing(
        "work.open-cluster-management.io/v1", "ManifestWork", {"workload": {"manifests": [DEPLOYMENT]}}
    ),
    "Template": {
        "apiVersion": "template.openshift.io/v1",
        "kind": "Template",
        "metadata": {"name": "t"},
        "objects": [DEPLOYMENT],
    },
    "Crossplane's Object": thing(
        "kubernetes.crossplane.io/v1alpha2", "Object", {"forProvider": {"manifest": DEPLOYMENT}}
    ),
    "List": {"apiVersion": "v1", "kind": "List", "items": [DEPLOYMENT]},
    "a Pod in a ManifestWork": thing(
        "work.open-cluster-management.io/v1", "ManifestWork", {"workload": {"manifests": [POD]}}
    ),
    "a List in a List": {"kind": "List", "items": [{"kind": "List", "items": [DEPLOYMENT]}]},
    "PodList": {"apiVersion": "v1", "kind": "PodList", "items": [template(**NAMED)]},
    "RolloutList": {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "RolloutList",
        "items": [{"metadata": NAMED, "spec": {"template": template()}}],
    },
}


def found_in(*documents: object) -> list[Found | Other]:
    return [*read(yaml.safe_dump_all(documents).encode(), is_json=False)]


@pytest.mark.parametrize("case", ONE)
def test_the_template_is_found_with_its_own_annotations(case: str) -> None:
    (found,) = found_in(ONE[case])
    assert isinstance(found, Found)
    assert (found.pod.namespace, found.pod.name) == ("shop", "web")
    assert found.pod.annotations[PORTS] == "22"
    assert found.pod.proxy


@pytest.mark.parametrize("case", ["Argo Rollout", "DeploymentConfig", "Knative Service", "a kind of nobody"])
def test_explain_and_trace_read_every_pod_template(case: str) -> None:
    given = json.dumps(ONE[case])
    done = install_cni("explain", "-f", "-", given=given)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"shop/web ({ONE[case]['kind']}): REDIRECT: it is a meshed pod\n")
    done = install_cni("trace", "shop/web", "-f", "-", "--to", "10.96.0.1:22", given=given)
    assert "The packet passes unchanged: not redirected." in done.stdout


SEVERAL = {
    "RayCluster": thing(
        "ray.io/v1",
        "RayCluster",
        {"headGroupSpec": {"template": template("22")}, "workerGroupSpecs": [{"template": template("23")}]},
    ),
    "PyTorchJob": thing(
        "kubeflow.org/v1",
        "PyTorchJob",
        {"pytorchReplicaSpecs": {"Master": {"template": template("22")}, "Worker": {"template": template("23")}}},
    ),
    "SparkApplication": thing(
        "sparkoperator.k8s.io/v1beta2",
        "SparkApplication",
        {"driver": {"template": template("22")}, "executor": {"template": template("23")}},
    ),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_each_of_several_templates_is_explained_and_traced_with_its_path(case: str) -> None:
    given = json.dumps(SEVERAL[case])
    done = install_cni("explain", "-f", "-", "-o", "json", given=given)
    first, second = json.loads(done.stdout)
    assert [each["name"] for each in (first, second)] == ["web", "web"]
    assert first["path"] != second["path"]
    done = install_cni("trace", "shop/web", "-f", "-", "--to", "10.96.0.1:23", given=given)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("arrives at port 15001") == 1
    assert done.stdout.count("passes unchanged") == 1
    for each in (first, second):
        assert f"({case}, {each['path']})" in install_cni("explain", "-f", "-", given=given).stdout
        assert f"({case}, {each['path']})" in done.stdout


def test_a_generated_name_is_shown_by_its_prefix() -> None:
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"generateName": "import-"},
        "spec": {"template": template()},
    }
    pod = {"kind": "Pod", **template(generateName="probe-")}
    assert [each.pod.name for each in found_in(job, pod) if isinstance(each, Found)] == ["import", "probe"]


HELM = f"""---
# Source: web/templates/empty.yaml
---
# Source: web/templates/rollout.yaml
{yaml.safe_dump(ONE["Argo Rollout"])}---

---
# Source: web/templates/config.yaml
apiVersion: v1
kind: ConfigMap
metadata: {{name: web}}
data: {{template: "spec: {{containers: []}}"}}
---
"""


def test_empty_documents_of_helm_are_skipped() -> None:
    done = install_cni("explain", "-f", "-", given=HELM)
    assert (done.returncode, done.stderr) == (0, "skipped: ConfigMap web creates no pods\n")
    assert done.stdout.startswith("shop/web (Rollout): REDIRECT")


SCHEMA = {"properties": {"spec": {"properties": {"containers": {"type": "array", "items": {}}}}}}
KNOWN = {
    "Service": thing("v1", "Service", {"ports": []}),
    "ConfigMap": thing("v1", "ConfigMap", None, data={"a": "b"}),
    "CustomResourceDefinition": thing(
        "apiextensions.k8s.io/v1", "CustomResourceDefinition", {"versions": [{"schema": {"openAPIV3Schema": SCHEMA}}]}
    ),
    "ClusterRole": thing("rbac.authorization.k8s.io/v1", "ClusterRole", None, rules=[]),
    "HorizontalPodAutoscaler": thing("autoscaling/v2", "HorizontalPodAutoscaler", {}),
    "Gateway API's": thing("gateway.networking.k8s.io/v1", "HTTPRoute", {}),
    "Istio's": thing("networking.istio.io/v1", "VirtualService", {"http": []}),
}
UNKNOWN = {
    "Rollout of a Deployment": thing(
        "argoproj.io/v1alpha1", "Rollout", {"workloadRef": {"kind": "Deployment", "name": "api"}}
    ),
    "SparkApplication": thing("sparkoperator.k8s.io/v1beta2", "SparkApplication", {"driver": {"cores": 1}}),
    "Workflow": thing("argoproj.io/v1alpha1", "Workflow", {"templates": [{"name": "a", "container": {"image": "b"}}]}),
    "TaskRun": thing("tekton.dev/v1", "TaskRun", {"taskSpec": {"steps": [{"name": "a"}]}}),
    "VirtualMachine": thing("kubevirt.io/v1", "VirtualMachine", {"template": {"metadata": {}, "spec": {"domain": {}}}}),
    "SidecarSet": thing("apps.kruise.io/v1alpha1", "SidecarSet", {"containers": [{"name": "log"}]}),
    "no list": thing("example.org/v1", "Widget", {"template": {"spec": {"containers": {"a": {}}}}}),
    "no apiVersion": {"kind": "Widget", "metadata": NAMED},
}


@pytest.mark.parametrize("case", KNOWN)
def test_a_kind_without_pods_is_skipped_with_a_note(case: str) -> None:
    given = yaml.safe_dump_all([KNOWN[case], POD])
    done = install_cni("explain", "-f", "-", given=given)
    assert (done.returncode, done.stderr) == (0, f"skipped: {KNOWN[case]['kind']} web creates no pods\n")
    alone = install_cni("explain", "-f", "-", given=yaml.safe_dump(KNOWN[case]))
    assert (alone.returncode, alone.stdout) == (1, "")
    assert "unknown" not in alone.stderr


@pytest.mark.parametrize("case", UNKNOWN)
def test_a_kind_without_a_template_is_called_unknown(case: str) -> None:
    kind = UNKNOWN[case]["kind"]
    done = install_cni("explain", "-f", "-", given=yaml.safe_dump(UNKNOWN[case]))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"unknown: {kind} web has no pod template" in done.stderr
    assert f"-: saw no pod and no resource that creates pods, expected one; unknown: {kind} web" in done.stderr
    beside = install_cni("explain", "-f", "-", given=yaml.safe_dump_all([UNKNOWN[case], POD]))
    assert beside.returncode == 0
    assert f"unknown: {kind} web has no pod template" in beside.stderr
    traced = install_cni("trace", "shop/web", "-f", "-", "--to", "10.0.0.1:80", given=yaml.safe_dump(UNKNOWN[case]))
    assert traced.returncode == 1
    assert f"unknown: {kind} web" in traced.stderr


def test_a_rollout_that_refers_to_a_deployment_names_it() -> None:
    done = install_cni("explain", "-f", "-", given=yaml.safe_dump(UNKNOWN["Rollout of a Deployment"]))
    assert "its pods come from Deployment api" in done.stderr


@pytest.mark.parametrize("api", ["apps/v1", None])
def test_a_builtin_kind_needs_its_template_at_its_path(api: str | None) -> None:
    wrong = {"apiVersion": api, "kind": "Deployment", "metadata": NAMED, "spec": {"template": {"spec": "none"}}}
    with pytest.raises(ManifestError, match=r"spec.template.spec: saw 'none', expected a mapping"):
        found_in(wrong)
    with pytest.raises(ManifestError, match=r"spec.template: saw None, expected a mapping"):
        found_in({**wrong, "spec": {}})


def test_template_error_has_line_and_path() -> None:
    inside = "template:\n    metadata:\n      annotations:\n        b: 1\n    spec: {containers: []}\n"
    text = f"kind: Rollout\nmetadata: {{name: a}}\nspec:\n  {inside}"
    with pytest.raises(ManifestError, match=r"line 7: spec.template.metadata.annotations.b: saw 1"):
        [*read(text.encode(), is_json=False)]


def deep(levels: int) -> dict[str, Any]:
    spec: object = template()
    for _ in range(levels):
        spec = {"a": spec}
    return thing("example.org/v1", "Widget", spec)


def test_template_search_is_bounded_in_depth() -> None:
    assert [type(each) for each in found_in(deep(DEEPEST_TEMPLATE - 1), deep(DEEPEST_TEMPLATE))] == [Found, Other]
    done = install_cni("explain", "-f", "-", given=json.dumps(deep(300)))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
