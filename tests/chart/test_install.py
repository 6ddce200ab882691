"""helm install, upgrade, rollback and uninstall on a real API server; what the agent's own token may do there."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from kubernetes import client
from kubernetes.config import new_client_from_config

from installer.config.control_plane import ControlPlaneSpec, read_control_plane
from installer.controller.pod_template import build_wish
from tests.chart.helm import CHART, PLATFORMS
from tests.chart.references import DIGEST
from tests.support.wait import until

if TYPE_CHECKING:
    from tests.chart.conftest import Applied, Release, Render
    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver

RIGHTS = {
    ("get", "pods"), ("list", "pods"), ("watch", "pods"), ("get", "nodes"),
    ("list", "istiocontrolplanes.install.istio.io"), ("watch", "istiocontrolplanes.install.istio.io"),
    ("get", "istiocninodes.cni.istio.io"), ("create", "istiocninodes.cni.istio.io"),
    ("patch", "istiocninodes.cni.istio.io"), ("patch", "istiocninodes/status.cni.istio.io"),
    ("get", "daemonsets.apps.istio-cni-node"), ("create", "events.events.k8s.io"),
    ("get", "runtimeclasses.node.k8s.io"),
}  # fmt: skip
CONTROLLERS = {
    ("list", "istiocontrolplanes.install.istio.io"), ("watch", "istiocontrolplanes.install.istio.io"),
    ("patch", "istiocontrolplanes.install.istio.io"), ("patch", "istiocontrolplanes/status.install.istio.io"),
    ("list", "istiocninodes.cni.istio.io"), ("watch", "istiocninodes.cni.istio.io"),
    ("create", "istiocninodes.cni.istio.io"), ("patch", "istiocninodes/status.cni.istio.io"),
    ("list", "nodes"), ("watch", "nodes"), ("patch", "nodes"), ("create", "events.events.k8s.io"),
}  # fmt: skip
CONTROLLERS_IN_ITS_NAMESPACE = {
    ("delete", "pods"),  # of the DaemonSet, as a policy says
    ("list", "daemonsets.apps.istio-cni-node"), ("watch", "daemonsets.apps.istio-cni-node"),
    ("patch", "daemonsets.apps.istio-cni-node"), ("list", "pods"), ("watch", "pods"), ("list", "events"),
    ("create", "leases.coordination.k8s.io"), ("get", "leases.coordination.k8s.io.istio-cni-controller"),
    ("update", "leases.coordination.k8s.io.istio-cni-controller"),
    ("get", "rolebindings.rbac.authorization.k8s.io.istio-cni-node-psp"),
    ("get", "rolebindings.rbac.authorization.k8s.io.istio-cni-node-psp-resource"),
    ("delete", "rolebindings.rbac.authorization.k8s.io.istio-cni-node-psp-resource"),
}  # fmt: skip


def daemonset(release: Release) -> dict[str, Any]:
    return release.cluster.admin.read(f"/apis/apps/v1/namespaces/{release.namespace}/daemonsets/istio-cni-node")


def config(release: Release) -> dict[str, str]:
    (container,) = daemonset(release)["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each["value"] for each in container["env"] if "value" in each}


def made_by(release: Release) -> list[str]:
    """Return the paths of what a release has made, from helm's own manifest of it."""
    found = [each for each in yaml.safe_load_all(release.helm("get", "manifest", "istio-cni")) if each]
    within = {"namespace": release.namespace}
    return [release.cluster.admin.path(each | {"metadata": within | each["metadata"]}) for each in found]


def left(release: Release, objects: list[str]) -> list[str]:
    """Return those that are there."""
    return [each for each in objects if release.cluster.admin.version(each)]


def test_install_upgrade_rollback_uninstall(release: Release) -> None:
    hub = {"cni": {"hub": "registry.example/mesh"}}
    said = release.helm("install", "istio-cni", str(CHART), values=hub, compares=True)
    assert f"in namespace {release.namespace}" in said
    assert "ATTENTION" not in said
    first, first_objects = daemonset(release), made_by(release)
    assert left(release, first_objects) == first_objects
    assert f"/apis/apps/v1/namespaces/{release.namespace}/deployments/istio-cni-controller" in first_objects
    assert first["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example/mesh/install-cni:0.1.0"
    assert config(release)["LOG_LEVEL"] == "warn"

    changed = "--set=cni.logLevel=debug,cni.tag=2"
    release.helm("upgrade", "istio-cni", str(CHART), "--reuse-values", changed, compares=True)
    second = daemonset(release)
    assert second["metadata"]["uid"] == first["metadata"]["uid"], "changed in place: agents are replaced node by node"
    assert second["metadata"]["generation"] == 2
    assert second["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example/mesh/install-cni:2"
    assert config(release)["LOG_LEVEL"] == "debug"

    release.helm("upgrade", "istio-cni", str(CHART), "--reuse-values")
    assert daemonset(release)["metadata"]["generation"] == 2, "an upgrade that changes nothing starts no agent again"

    release.helm("rollback", "istio-cni", "1")
    third = daemonset(release)
    assert third["spec"] == first["spec"] | {"template": third["spec"]["template"]}
    assert third["spec"]["template"]["spec"] == first["spec"]["template"]["spec"]
    assert config(release)["LOG_LEVEL"] == "warn"

    release.helm("uninstall", "istio-cni", "--no-hooks")  # nobody runs Jobs here
    assert left(release, first_objects) == [], "nothing of what was made"
    assert "istiocontrolplanes.install.istio.io" in release.cluster.kubectl("get", "crd", "--output=name")


def test_refused_values_leave_the_release_unchanged(release: Release) -> None:
    release.helm("install", "istio-cni", str(CHART))
    before = daemonset(release)
    failed = release.try_helm("upgrade", "istio-cni", str(CHART), values={"cni": {"logLevel": "loud"}})
    assert failed.returncode != 0
    assert "at '/cni/logLevel'" in failed.stderr
    assert daemonset(release) == before


def test_the_notes_name_the_next_steps(release: Release) -> None:
    said = release.helm("install", "istio-cni", str(CHART), "--dry-run=server", "--set=platform=openshift-3.10")
    assert "ATTENTION: cni.hub is not set" in said
    assert f"add-scc-to-user privileged -z istio-cni-node -n {release.namespace}" in said
    assert f"kubectl --namespace {release.namespace} rollout status daemonset/istio-cni-node" in said
    assert "pilot.cni.enabled=true" in said
    assert "helm rollback" not in said


@pytest.mark.parametrize("platform", ["", *PLATFORMS])
def test_the_api_server_accepts_the_objects_of_every_preset(
    cluster: Cluster, release: Release, render: Render, apply: Applied, platform: str
) -> None:
    rendered = render({"platform": platform}, f"--namespace={release.namespace}")
    unknown_here = {"NetworkAttachmentDefinition"}  # Multus brings its definition
    items = [each for each in rendered.objects if each["kind"] not in unknown_here]
    done = apply({"apiVersion": "v1", "kind": "List", "items": items}, "--dry-run=server", "--validate=strict")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("server dry run") == len(items)


def rights(cluster: Cluster, namespace: str, account: str, asked_in: str) -> set[tuple[str, str]]:
    """Ask the API server, by an account's own token, what it may do in a namespace.

    Returns:
        Verb and resource, such as ("get", "pods"), or verb and path.
    """
    kubeconfig = cluster.kubeconfig(f"{namespace}-{account}", token=cluster.token(namespace, account))
    api = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    command = cluster.kubectl_command(f"--kubeconfig={kubeconfig}", "create", f"--raw={api}", "--filename=-")
    question = json.dumps({"spec": {"namespace": asked_in}})
    answer = subprocess.run(command, input=question, capture_output=True, text=True, timeout=60, check=True).stdout
    status = json.loads(answer)["status"]
    assert not status["incomplete"]
    on_resources = {
        (verb, ".".join(filter(None, [resource, group, *rule.get("resourceNames", [])])))
        for rule in status["resourceRules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    paths = {
        (verb, url) for rule in status["nonResourceRules"] for verb in rule["verbs"] for url in rule["nonResourceURLs"]
    }
    return on_resources | paths


@pytest.mark.parametrize("asked_in", ["default", "kube-system", "the release's"])
def test_tokens_have_exactly_the_granted_rights(cluster: Cluster, release: Release, asked_in: str) -> None:
    release.helm("install", "istio-cni", str(CHART))
    cluster.service_account(release.namespace, "anybody")
    own = asked_in == "the release's"
    where = release.namespace if own else asked_in
    everybodys = rights(cluster, release.namespace, "anybody", where)
    assert rights(cluster, release.namespace, "istio-cni-node", where) - everybodys == RIGHTS
    controllers = CONTROLLERS | (CONTROLLERS_IN_ITS_NAMESPACE if own else set())
    assert rights(cluster, release.namespace, "istio-cni-controller", where) - everybodys == controllers
    assert not (RIGHTS | controllers) & everybodys


@pytest.mark.parametrize("mode", ["redirect", "report", "none", "delete"])
def test_only_repair_mode_delete_grants_pod_deletion(cluster: Cluster, release: Release, mode: str) -> None:
    release.helm("install", "istio-cni", str(CHART), f"--set=cni.repairMode={mode}")
    deletes = ("delete", "pods") in rights(cluster, release.namespace, "istio-cni-node", "default")
    assert deletes is (mode == "delete")


def test_agent_token_reads_pods_of_all_namespaces_and_nothing_more(cluster: Cluster, release: Release) -> None:
    release.helm("install", "istio-cni", str(CHART))
    kubeconfig = cluster.kubeconfig("node-agent", token=cluster.token(release.namespace, "istio-cni-node"))
    core = client.CoreV1Api(new_client_from_config(str(kubeconfig)))  # type: ignore[no-untyped-call]
    core.list_pod_for_all_namespaces(field_selector="spec.nodeName=node1")
    for refused in (core.list_node, core.list_namespace, core.list_secret_for_all_namespaces):
        with pytest.raises(client.ApiException) as error:
            refused()
        assert error.value.status == 403


def node_report(name: str) -> str:
    return json.dumps({"apiVersion": "cni.istio.io/v1alpha1", "kind": "IstioCNINode", "metadata": {"name": name}})


def test_agent_token_writes_only_the_istiocninode_of_its_node(cluster: Cluster, release: Release) -> None:
    release.helm("install", "istio-cni", str(CHART))
    cluster.kubectl("wait", "--for=condition=Established", "crd/istiocninodes.cni.istio.io", "--timeout=30s")
    for name in ("own", "others"):
        cluster.core.create_node({"metadata": {"name": name}})  # type: ignore[arg-type]
    bound = ("--bound-object-kind=Node", "--bound-object-name=own")
    account = f"--namespace={release.namespace}"
    tokens = {
        "own": cluster.kubectl("create", "token", "istio-cni-node", account, *bound).strip(),
        "none": cluster.token(release.namespace, "istio-cni-node"),
    }

    def written(by: str, node: str, path: str = "", body: str = "") -> str:
        kubeconfig = cluster.kubeconfig(f"bound-to-{by}", token=tokens[by])
        field_manager = ("--field-manager=istio-cni-node", f"--subresource={path}") if path else ()
        command = cluster.kubectl_command(f"--kubeconfig={kubeconfig}", "apply", "--server-side", "--validate=false")
        done = subprocess.run(
            [*command, *field_manager, "--filename=-"],
            input=body or node_report(node),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stderr if done.returncode else ""

    until(lambda: "(none)" in written("none", "own"), 30, "the policy is in force")
    assert written("own", "own") == ""
    assert "saw the token of an agent on node own, expected that of node others" in written("own", "others")
    report = json.loads(node_report("own")) | {"status": {"state": "NotInstalled"}}
    assert written("own", "own", "status", json.dumps(report)) == ""
    cluster.kubectl("apply", "--server-side", "--filename=-", text=node_report("others"))
    report["metadata"]["name"] = "others"
    assert "expected that of node others" in written("own", "others", "status", json.dumps(report))


@pytest.mark.parametrize("tag", ["1", f"@{DIGEST}", f"1@{DIGEST}"], ids=["tag", "digest", "both"])
def test_an_upgrade_keeps_the_fields_of_a_resource_and_restarts_no_agent(release: Release, tag: str) -> None:
    of_the_chart = {
        "hub": "of-the-chart",
        "podAnnotations": {"a": "1"},
        "controller": {"allowedHubs": ["of-the-resource"]},
    }
    release.helm("install", "istio-cni", str(CHART), values={"cni": of_the_chart})
    asked = {"hub": "of-the-resource", "tag": tag, "podAnnotations": {"b": "2"}, "cniBinDir": "/of/the/resource/cni"}
    chosen = read_control_plane({"spec": {"values": {"cni": asked}}})

    def apply(what: ControlPlaneSpec | None) -> dict[str, Any]:
        text = json.dumps(build_wish(daemonset(release), what, parked=False).manifest(daemonset(release)))
        by = ("--server-side", "--force-conflicts", "--field-manager=istio-cni-controller")
        release.cluster.kubectl("apply", *by, "--filename=-", text=text)
        return daemonset(release)

    before = apply(chosen)
    template = before["spec"]["template"]
    image = f"of-the-resource/install-cni:{tag}".replace(":@", "@")
    assert template["spec"]["containers"][0]["image"] == image
    assert {each["name"]: each["hostPath"]["path"] for each in template["spec"]["volumes"]}[
        "cni-bin-dir"
    ] == "/of/the/resource/cni"
    assert {"a": "1", "b": "2"}.items() <= template["metadata"]["annotations"].items()
    release.helm("upgrade", "istio-cni", str(CHART), "--reuse-values")
    assert daemonset(release)["metadata"]["generation"] == before["metadata"]["generation"]
    release.helm("upgrade", "istio-cni", str(CHART), "--reuse-values", "--set=cni.logLevel=debug")
    upgraded = daemonset(release)
    assert upgraded["metadata"]["generation"] == before["metadata"]["generation"] + 1, "for the chart's own change"
    environment = template["spec"]["containers"][0]["env"]
    next(each for each in environment if each["name"] == "LOG_LEVEL")["value"] = "debug"
    assert upgraded["spec"]["template"]["spec"] == template["spec"]
    assert apply(chosen)["metadata"]["generation"] == upgraded["metadata"]["generation"]
    container = apply(None)["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "of-the-chart/install-cni:0.1.0", "what leaves the resource goes back to the chart's"


WRITTEN_BY_A_THIEF = {
    "hub": "evil.example",
    "tag": '1"\n        command: [evil]',
    "pullPolicy": "Always\n        command: [evil]",
    "cniBinDir": "/etc/cron.d",
    "cniConfDir": "/etc\n        type: Evil",
    "podAnnotations": {"vault.hashicorp.com/agent-inject": "true"},
    "resources": ["evil"],
    "agentSocket": "/run/evil/evil.sock",
    "seLinuxOptions": {"type": "spc_t"},
    "imagePullSecrets": ["evil"],
}


@pytest.mark.parametrize(
    "written", [WRITTEN_BY_A_THIEF, "no mapping", ["a"], None], ids=["values", "text", "list", "null"]
)
def test_an_upgrade_copies_only_fields_that_the_controller_may_write(release: Release, written: object) -> None:
    release.helm("install", "istio-cni", str(CHART), "--set=cni.hub=of-the-chart")
    before = daemonset(release)
    annotation = f"cni.istio.io/resource-values={json.dumps(written)}"
    where = f"--namespace={release.namespace}"
    release.cluster.kubectl("annotate", "daemonset", "istio-cni-node", where, annotation)
    release.helm("upgrade", "istio-cni", str(CHART), "--reuse-values")
    assert daemonset(release)["spec"] == before["spec"]
