"""What whoever has stolen the token of an account can do with it: real tokens at a real API server, which refuses the rest.

RBAC grants each of these requests. Without the chart's policies each is carried out.
"""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.chart.conftest import Release
from tests.chart.helm import CHART
from tests.programs.lots import KUBE
from tests.support.token import APPLY, JSON, JSON_PATCH, MERGE, STRATEGIC, Answer, Request, ask
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.chart.conftest import Refuse, Render
    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver

NAMESPACE = "stolen"
HUB = "registry.example/mesh"
PSP = "of-psp"
DIGEST = "sha256:" + "0" * 64
SOON = 60.0  # seconds: a policy is in force a moment after it was made
OURS = {"key": "cni.istio.io/not-ready", "effect": "NoSchedule"}
OTHER = {"key": "of.others", "effect": "NoSchedule"}
VALUES = {
    "hub": HUB,
    "repairMode": "delete",
    "podAnnotations": {"scanner.example/enforce": "true"},
    "controller": {
        "mayBind": [PSP],
        "allowedHubs": ["mirror.example"],
        "allowedDirectories": ["/opt/plugins"],
        "allowedAnnotations": ["of.example/a", "scan.example/"],
    },
}

NODE = "/api/v1/nodes/own"
DAEMONSET = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/istio-cni-node"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
CONTROL_PLANE = "/apis/install.istio.io/v1alpha2/namespaces/default/istiocontrolplanes/mesh"
PODS = "/api/v1/namespaces/default/pods"
ACCOUNTS = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
CONTAINER = "/spec/template/spec/containers/0"
REPORTS = "/apis/cni.istio.io/v1alpha1/istiocninodes"
BINDINGS = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/rolebindings"


@pytest.fixture(scope="module")
def installed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster with the chart, two nodes, a pod of the mesh on each, and what people and agents have written."""
    release = Release(cluster, NAMESPACE, tmp_path_factory.mktemp("helm"))
    cluster.kubectl("create", "namespace", NAMESPACE)
    release.helm("install", "istio-cni", str(CHART), values={"cni": VALUES})
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    cluster.kubectl("create", "clusterrole", PSP, "--verb=use", "--resource=podsecuritypolicies.policy")
    cluster.kubectl("delete", "node,istiocninode", "own", "others", "--ignore-not-found")  # of other tests
    for name in ("own", "others"):
        metadata: Any = {"name": name, "labels": {"a": "b"}}
        cluster.core.create_node({"metadata": metadata})  # type: ignore[arg-type]
        cluster.core.patch_node(name, {"spec": {"taints": [OTHER]}})  # in place of what each new node gets
        report = {"apiVersion": "cni.istio.io/v1alpha1", "kind": "IstioCNINode", "metadata": {"name": name}}
        cluster.kubectl("apply", "--filename=-", text=json.dumps(report))
        ready = condition("True")["conditions"][0] | {"reason": "Redirecting"}
        written = json.dumps({"status": {"conditions": [ready]}})
        cluster.kubectl("patch", "istiocninode", name, "--subresource=status", "--type=merge", f"--patch={written}")
    for name, node, proxy in (
        ("meshed", "own", True),
        ("plain", "own", False),
        ("far", "others", True),
        ("new", "", True),
    ):
        cluster.core.create_namespaced_pod("default", pod(name, node, meshed=proxy))
    for name, owner in (("agent", "istio-cni-node"), ("foreign", "other"), ("alone", "")):
        made = pod(name, "own", meshed=False)
        of = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": owner, "uid": "a-uid", "controller": True}
        made["metadata"]["ownerReferences"] = [of] if owner else []
        cluster.core.create_namespaced_pod(NAMESPACE, made)
    asked = {
        "apiVersion": "install.istio.io/v1alpha2",
        "kind": "IstioControlPlane",
        "spec": {"values": {"cni": {"tag": "1"}}},
    }
    metadata = {"name": "mesh", "namespace": "default", "annotations": {"of": "people"}, "finalizers": ["of.others/x"]}
    cluster.kubectl("apply", "--filename=-", text=json.dumps(asked | {"metadata": metadata}))
    yield cluster
    cluster.kubectl("patch", "icp", "mesh", "--type=merge", "--patch", '{"metadata":{"finalizers":null}}')
    cluster.kubectl("delete", "icp", "mesh")
    cluster.kubectl("delete", "clusterrole", PSP)
    for namespace in ("default", NAMESPACE):
        cluster.kubectl("delete", "pods", "--all", "--grace-period=0", "--force", f"--namespace={namespace}")
    cluster.kubectl("delete", "node,istiocninode", "own", "others")
    release.helm("uninstall", "istio-cni", "--no-hooks")


def pod(name: str, node: str, *, meshed: bool) -> Any:
    containers = [{"name": each, "image": "none"} for each in ("app", *(["istio-proxy"] if meshed else []))]
    metadata = {"name": name, "annotations": {"sidecar.istio.io/status": "{}"} if meshed else {}}
    return {"metadata": metadata, "spec": {"containers": containers, **({"nodeName": node} if node else {})}}


@pytest.fixture(scope="module")
def tokens(installed: Cluster) -> dict[str, str]:
    """A token of each account: the controller's, an agent's as the kubelet asks for it, and one that names no node."""
    bound = ("--bound-object-kind=Node", "--bound-object-name=own")
    of_agent = installed.kubectl("create", "token", "istio-cni-node", f"--namespace={NAMESPACE}", *bound).strip()
    return {
        "controller": installed.token(NAMESPACE, "istio-cni-controller"),
        "agent": of_agent,
        "unbound": installed.token(NAMESPACE, "istio-cni-node"),
    }


def taints(*its: Mapping[str, str]) -> Request:
    return Request("PATCH", NODE, {"spec": {"taints": [*its]}}, MERGE)


def of_node(body: Mapping[str, Any]) -> Request:
    return Request("PATCH", NODE, body, MERGE)


def of_pods(spec: Mapping[str, Any], kind: str = STRATEGIC) -> Request:
    return Request("PATCH", DAEMONSET, {"spec": {"template": {"spec": spec}}}, kind)


def of_container(**fields: Any) -> Request:
    return of_pods({"containers": [{"name": "install-cni", **fields}]})


def directories(bin_dir: str, conf_dir: str = "/etc/cni/net.d", *, environment: str = "") -> Request:
    env = [{"name": "CNI_BIN_DIR", "value": environment or bin_dir}, {"name": "CNI_CONF_DIR", "value": conf_dir}]
    volumes = [
        {"name": name, "hostPath": {"path": path, "type": "Directory"}}
        for name, path in (("cni-bin-dir", bin_dir), ("cni-conf-dir", conf_dir))
    ]
    return of_pods({"containers": [{"name": "install-cni", "env": env}], "volumes": volumes})


def of_daemonset(body: Mapping[str, Any]) -> Request:
    return Request("PATCH", DAEMONSET, body, MERGE)


def applied_daemonset(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "istio-cni-node", "namespace": NAMESPACE}
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata, "spec": {"template": {"spec": spec}}}


def annotated(**annotations: str | None) -> Request:
    return of_daemonset({"spec": {"template": {"metadata": {"annotations": annotations}}}})


def lease(name: str, **metadata: Any) -> Request:
    return Request("POST", LEASES, {"metadata": {**({"name": name} if name else {}), **metadata}, "spec": {}})


def of_control_plane(body: Mapping[str, Any], path: str = "") -> Request:
    return Request("PATCH", CONTROL_PLANE + path, body, MERGE)


def report(name: str, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "cni.istio.io/v1alpha1", "kind": "IstioCNINode", "metadata": {"name": name, **metadata}}


def nameless() -> dict[str, Any]:
    return report("") | {"metadata": {"generateName": "x"}}


def owned(name: str, **more: Any) -> list[dict[str, Any]]:
    return [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": "a-uid", **more}]


def condition(status: str, kind: str = "Ready") -> dict[str, Any]:
    said = {"reason": "Why", "message": "why", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    return {"conditions": [{"type": kind, "status": status, **said}]}


def of_report(name: str, status: Mapping[str, Any]) -> Request:
    return Request("PATCH", f"{REPORTS}/{name}/status", {"status": status}, MERGE)


def applied_report(name: str, **metadata: Any) -> Request:
    return Request("PATCH", f"{REPORTS}/{name}", report(name, **metadata), APPLY)


def told(about: Mapping[str, Any], namespace: str = "default", **fields: Any) -> Request:
    """An Event as the controller writes them."""
    event = {
        "metadata": {"generateName": "istio-cni-controller-"}, "regarding": about, "type": "Normal", "reason": "Why",
        "action": "Reconcile", "note": "why", "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "istio-cni-controller", "reportingInstance": "a-pod",
    }  # fmt: skip
    return Request("POST", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", event | fields)


def event(regarding: Mapping[str, Any], namespace: str = "default", **fields: Any) -> Request:
    """An Event as agents write them."""
    written = {
        "metadata": {"generateName": "istio-cni-node-", "namespace": namespace}, "regarding": regarding, "type": "Warning",
        "reason": "Why", "action": "Reconcile", "note": "why", "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "istio-cni-node", "reportingInstance": "own",
    }  # fmt: skip
    return Request("POST", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", written | fields)


def about(kind: str, name: str, version: str = "v1", **more: str) -> dict[str, str]:
    return {"kind": kind, "apiVersion": version, "name": name, "uid": "a-uid", **more}


def binding(role: str, *, name: str = "istio-cni-node-psp-resource", metadata: Any = None, **subject: str) -> Request:
    subjects = [{"kind": "ServiceAccount", "name": "istio-cni-node", "namespace": NAMESPACE} | subject]
    role_ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
    return Request(
        "POST", BINDINGS, {"metadata": {"name": name, **(metadata or {})}, "roleRef": role_ref, "subjects": subjects}
    )


def delete(name: str, namespace: str = "default") -> Request:
    return Request("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}")


ICP = about("IstioControlPlane", "mesh", "install.istio.io/v1alpha2", namespace="default")
EVIL = {"name": "evil", "image": "evil"}
KEY = "cni.istio.io/not-ready"

BY_THE_CONTROLLER: dict[str, tuple[Request, str]] = {
    "cordon a node": (of_node({"spec": {"unschedulable": True}}), "of the taint"),
    "relabel a node": (of_node({"metadata": {"labels": {"a": "c"}}}), "of the taint"),
    "take a label off a node": (of_node({"metadata": {"labels": {"a": None}}}), "of the taint"),
    "annotate a node": (of_node({"metadata": {"annotations": {"a": "c"}}}), "of the taint"),
    "keep a node for ever": (of_node({"metadata": {"finalizers": ["x.example/y"]}}), "of the taint"),
    "have a node go with a pod": (of_node({"metadata": {"ownerReferences": owned("own")}}), "of the taint"),
    "throw all pods out of a node": (taints(OTHER, {"key": "evil", "effect": "NoExecute"}), "of the taint"),
    "throw them out by our taint": (taints(OTHER, OURS | {"effect": "NoExecute"}), "of the taint"),
    "keep them out a little": (taints(OTHER, OURS | {"effect": "PreferNoSchedule"}), "of the taint"),
    "write into our taint": (taints(OTHER, OURS | {"value": "x"}), "of the taint"),
    "take others' taints off": (taints(), "of the taint"),
    "change the effect of others' taints": (taints(OTHER | {"effect": "NoExecute"}), "of the taint"),
    "give others' taints a value": (taints(OTHER | {"value": "x"}), "of the taint"),
    "take them off with ours put on": (taints(OURS), "of the taint"),
    "name another provider": (of_node({"spec": {"providerID": "x"}}), "of the taint"),
    "take the node's addresses": (of_node({"spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]}}), "of the taint"),
    "delete a pod of its namespace": (delete("alone", NAMESPACE), "deletion of another pod"),
    "delete a pod of another DaemonSet": (delete("foreign", NAMESPACE), "deletion of another pod"),
    "see the node's processes": (of_pods({"hostPID": True}), "of the agents' pods"),
    "see its IPC": (of_pods({"hostIPC": True}), "of the agents' pods"),
    "run by another account": (of_pods({"serviceAccountName": "other", "serviceAccount": "other"}), "of the agents' pods"),
    "run a container before": (of_pods({"initContainers": [EVIL]}), "of the agents' pods"),
    "run a container beside": (of_pods({"containers": [EVIL]}), "of the agents' container"),
    "run another container alone": (of_pods({"containers": [EVIL]}, MERGE), "of the agents' container"),
    "share processes": (of_pods({"shareProcessNamespace": True}), "of the agents' pods"),
    "run without seccomp": (of_pods({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}), "of the agents' pods"),
    "run nowhere": (of_pods({"nodeSelector": {"x": "y"}}), "of the agents' pods"),
    "run elsewhere": (of_pods({"affinity": {"nodeAffinity": {}}}), "of the agents' pods"),
    "tolerate a taint": (of_pods({"tolerations": [{"key": "x", "operator": "Exists"}]}), "of the agents' pods"),
    "leave tainted nodes": (of_pods({"tolerations": []}, MERGE), "of the agents' pods"),
    "use another runtime": (of_pods({"runtimeClassName": "x"}), "of the agents' pods"),
    "have any Secret pull": (of_pods({"imagePullSecrets": [{"name": "x"}]}), "of the agents' pods"),
    "run as the class of nobody": (of_pods({"priorityClassName": ""}), "of the agents' pods"),
    "gain privileges": (of_container(securityContext={"allowPrivilegeEscalation": True}), "of the agents' container"),
    "have more capabilities": (
        of_container(securityContext={"capabilities": {"add": ["SYS_PTRACE"]}}), "of the agents' container"
    ),
    "write into its root": (of_container(securityContext={"readOnlyRootFilesystem": False}), "of the agents' container"),
    "run another command": (of_container(command=["/bin/sh"]), "of the agents' container"),
    "run with other arguments": (of_container(args=["uninstall"]), "of the agents' container"),
    "have the kubelet run a command": (
        of_container(lifecycle={"postStart": {"exec": {"command": ["/x"]}}}), "of the agents' container"
    ),
    "be ready always": (of_container(readinessProbe=None), "of the agents' container"),
    "mount a volume elsewhere": (
        of_container(volumeMounts=[{"name": "cni-bin-dir", "mountPath": "/usr"}]), "of the agents' container"
    ),
    "read Secrets into its environment": (
        of_container(envFrom=[{"secretRef": {"name": "x"}}]), "of the agents' container"
    ),
    "have a variable be another field": (
        of_container(env=[{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
        "another environment",
    ),
    "hide a variable": (
        Request("PATCH", DAEMONSET, [{"op": "remove", "path": CONTAINER + "/env/0"}], JSON_PATCH), "another environment"
    ),
    "run as another user": (of_pods({"securityContext": {"runAsUser": 1000}}), "of the agents' pods"),
    "run by another SELinux type": (of_pods({"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}), "of the agents' pods"),
    "be on a node's network no more": (of_pods({"hostNetwork": False}), "of the agents' pods"),
    "ask another name server": (
        of_pods({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["203.0.113.1"]}}), "of the agents' pods"
    ),
    "name hosts": (of_pods({"hostAliases": [{"ip": "203.0.113.1", "hostnames": ["x"]}]}), "of the agents' pods"),
    "run on one node": (of_pods({"nodeName": "others"}), "of the agents' pods"),
    "be scheduled by others": (of_pods({"schedulerName": "x"}), "of the agents' pods"),
    "never end": (of_pods({"terminationGracePeriodSeconds": 99999}), "of the agents' pods"),
    "have the token's own audience": (
        of_pods({"volumes": [{"name": "netns-dir", "hostPath": None, "projected": {"sources": [
            {"serviceAccountToken": {"path": "t", "audience": "vault"}}]}}]}), "agents' volumes"
    ),
    "write where it reads": (
        of_container(volumeMounts=[{"mountPath": "/host/netns-dir", "readOnly": False}]), "of the agents' container"
    ),
    "mount backwards": (
        of_container(volumeMounts=[{"mountPath": "/host/cni-bin-dir", "mountPropagation": "Bidirectional"}]),
        "privileged containers",
    ),
    "take an annotation off": (annotated(**{"scanner.example/enforce": None}), "without scanner.example/enforce"),
    "apply as helm": (
        Request("PATCH", DAEMONSET, applied_daemonset(hostPID=True), APPLY), "of the agents' pods"
    ),
    "run a tag that is none": (of_container(image=f"{HUB}/install-cni:../../evil"), "saw image"),
    "run a hub with a dot path": (of_container(image=f"{HUB}/../install-cni:1"), "saw image"),
    "run a hub's port": (of_container(image=f"{HUB}:5000/install-cni:1"), "saw image"),
    "run a hub behind an at": (of_container(image=f"{HUB}@evil.example/install-cni:1"), "saw image"),
    "run after a line": (of_container(image=f"{HUB}/install-cni:1\n"), "is forbidden"),
    "run a digest in upper case": (of_container(image=f"{HUB}/install-cni@sha256:{'A' * 64}"), "saw image"),
    "run two digests": (of_container(image=f"{HUB}/install-cni@{DIGEST}@{DIGEST}"), "saw image"),
    "run a digest of another kind": (of_container(image=f"{HUB}/install-cni@sha512:{'0' * 128}"), "saw image"),
    "mount a container's root": (
        directories("/run/containerd/io.containerd.runtime.v2.task/k8s.io/x/rootfs/opt/cni/bin"), "saw directories"
    ),
    "mount a snapshot": (
        directories("/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs/cni"), "saw directories"
    ),
    "mount a snapshot of another distribution": (
        directories("/var/lib/rancher/k3s/agent/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs/cni"),
        "saw directories",
    ),
    "mount a layer": (directories("/var/lib/containers/storage/overlay/x/merged/cni"), "saw directories"),
    "mount docker's": (directories("/var/lib/docker/overlay2/x/merged/cni"), "saw directories"),
    "mount a pod's volume elsewhere": (
        directories("/var/snap/microk8s/common/var/lib/kubelet/pods/x/volumes/kubernetes.io~empty-dir/cni"), "saw directories"
    ),
    "mount a user's": (directories("/run/user/1000/cni"), "saw directories"),
    "mount a user's home elsewhere": (directories("/var/home/core/cni"), "saw directories"),
    "mount through a link": (directories("/var/run/user/1000/cni"), "saw directories"),
    "take a device": (of_container(resources={"claims": [{"name": "x"}]}), "resources.claims"),
    "set LD_PRELOAD": (of_container(env=[{"name": "LD_PRELOAD", "value": "/x"}]), "another environment"),
    "set another setting": (of_container(env=[{"name": "NODE_NAME", "value": "x", "valueFrom": None}]), "another environment"),
    "read a Secret as a directory": (
        of_container(env=[{"name": "CNI_BIN_DIR", "value": None, "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}]),
        "another environment",
    ),
    "say another directory than is mounted": (directories("/opt/cni/x", environment="/opt/cni/y"), "another environment"),
    "run another hub's image": (of_container(image="evil.example/mesh/install-cni:1"), "cni.controller.allowedHubs"),
    "run an image of a hub that begins alike": (of_container(image=f"{HUB}.evil/install-cni:1"), "saw image"),
    "run an image below the hub": (of_container(image=f"{HUB}/evil/install-cni:1"), "saw image"),
    "run another image of the hub": (of_container(image=f"{HUB}/evil:1"), "saw image"),
    "run one whose name begins alike": (of_container(image=f"{HUB}/install-cni-evil:1"), "saw image"),
    "run one by a digest of another": (of_container(image=f"{HUB}/evil@{DIGEST}"), "saw image"),
    "run a Docker Hub image": (of_container(image="install-cni:1"), "saw image"),
    "mount the whole node": (of_pods({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}), "agents' volumes"),
    "mount a Secret": (of_pods({"volumes": [{"name": "x", "secret": {"secretName": "x"}}]}), "agents' volumes"),
    "mount the node for a directory of ours": (directories("/"), "saw directories"),
    "mount /etc": (directories("/opt/cni/bin", "/etc"), "saw directories"),
    "mount static pods": (directories("/opt/cni/bin", "/etc/kubernetes/manifests"), "saw directories"),
    "mount cron's": (directories("/etc/cron.d"), "saw directories /etc/cron.d"),
    "go up from CNI's": (directories("/opt/cni/../../etc"), "must not contain '..'"),
    "go through a process's root": (directories("/proc/1/root/opt/cni/bin"), "saw directories"),
    "have a pod's own volume read": (
        directories("/opt/cni/bin", "/var/lib/kubelet/pods/x/volumes/kubernetes.io~empty-dir/cni"), "saw directories"
    ),
    "mount the runtime's socket for ours": (
        of_pods({"volumes": [{"name": "agent-socket", "hostPath": {"path": "/run/containerd/cni"}}]}), "agents' volumes"
    ),
    "have the node's directory be made": (
        of_pods({"volumes": [{"name": "cni-bin-dir", "hostPath": {"path": "/x/cni", "type": "DirectoryOrCreate"}}]}),
        "agents' volumes",
    ),
    "have a Secret be a directory": (
        of_pods({"volumes": [{"name": "cni-conf-dir", "hostPath": None, "secret": {"secretName": "x"}}]}), "agents' volumes"
    ),
    "have a device injected": (annotated(**{"cdi.k8s.io/x": "x"}), "saw annotations"),
    "have a sidecar injected": (annotated(**{"sidecar.istio.io/inject": "true"}), "saw annotations"),
    "run without AppArmor": (
        annotated(**{"container.apparmor.security.beta.kubernetes.io/install-cni": "unconfined"}), "saw annotations"
    ),
    "have Vault's agent run a command": (annotated(**{"vault.hashicorp.com/agent-inject": "true"}), "saw annotations"),
    "tell crun": (annotated(**{"run.oci.handler": "wasm"}), "saw annotations"),
    "tell CRI-O": (annotated(**{"io.kubernetes.cri-o.userns-mode": "x"}), "saw annotations"),
    "replace all agents at once": (
        of_daemonset({"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": "100%"}}}}), "of the DaemonSet"
    ),
    "stop the roll-out of a fix": (
        of_daemonset({"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": None}}}), "of the DaemonSet"
    ),
    "keep the DaemonSet for ever": (of_daemonset({"metadata": {"finalizers": ["x.example/y"]}}), "of the DaemonSet"),
    "say that helm has no part in it": (
        of_daemonset({"metadata": {"annotations": {"meta.helm.sh/release-name": "x"}}}), "of the DaemonSet"
    ),
    "say what the chart says": (
        of_daemonset({"metadata": {"annotations": {"cni.istio.io/chart-values": "{}"}}}), "of the DaemonSet"
    ),
    "mesh the agents": (
        of_daemonset({"spec": {"template": {"metadata": {"labels": {"sidecar.istio.io/inject": "true"}}}}}), "of the DaemonSet"
    ),
    "lead what is another's": (lease("kube-controller-manager"), "expected the Lease"),
    "lead what has no name yet": (lease("", generateName="kube-controller-manager"), "expected the Lease"),
    "keep the Lease for ever": (lease("istio-cni-controller", finalizers=["x.example/y"]), "expected the Lease"),
    "have the Lease go with a node": (lease("istio-cni-controller", ownerReferences=owned("own")), "expected the Lease"),
    "write a book on the Lease": (lease("istio-cni-controller", annotations={"x": "x" * 200_000}), "expected the Lease"),
    "change what a resource asks for": (
        of_control_plane({"spec": {"values": {"cni": {"tag": "2"}}}}), "of the IstioControlPlane"
    ),
    "let go of a resource for others": (of_control_plane({"metadata": {"finalizers": []}}), "of the IstioControlPlane"),
    "keep a resource for others": (
        of_control_plane({"metadata": {"finalizers": ["of.others/x", "of.others/y"]}}), "of the IstioControlPlane"
    ),
    "label a resource": (of_control_plane({"metadata": {"labels": {"a": "b"}}}), "of the IstioControlPlane"),
    "annotate a resource": (of_control_plane({"metadata": {"annotations": {"a": "b"}}}), "of the IstioControlPlane"),
    "take annotations off": (of_control_plane({"metadata": {"annotations": {"of": None}}}), "of the IstioControlPlane"),
    "have a resource go with a node": (
        of_control_plane({"metadata": {"ownerReferences": owned("own")}}), "of the IstioControlPlane"
    ),
    "report of Pilot": (
        of_control_plane({"status": {"status": {"pilot": {"status": "ERROR"}}}}, "/status"), "of the IstioControlPlane"
    ),
    "report that a node is well": (of_report("own", condition("True")), "of the IstioCNINode"),
    "report what it has installed": (of_report("own", {"state": "Removed"}), "of the IstioCNINode"),
    "take back what it has reported": (of_report("own", {"conditions": []}), "of the IstioCNINode"),
    "report two of them": (
        of_report("own", {"conditions": [*condition("False")["conditions"], *condition("True", "Installed")["conditions"]]}),
        "of the IstioCNINode",
    ),
    "make a report of no node": (Request("POST", REPORTS, report("x")), "another IstioCNINode"),
    "make a report that stays": (
        Request("POST", REPORTS, report("x", ownerReferences=owned("x"), finalizers=["x.example/y"])), "another IstioCNINode"
    ),
    "make one that another owns": (
        Request("POST", REPORTS, report("x", ownerReferences=owned("own"))), "another IstioCNINode"
    ),
    "make one that keeps its node": (
        Request("POST", REPORTS, report("x", ownerReferences=owned("x", blockOwnerDeletion=True))), "another IstioCNINode"
    ),
    "speak as the kubelet": (told(about("Node", "own"), reportingController="kubelet"), "another Event"),
    "be shown as the kubelet": (told(about("Node", "own"), deprecatedSource={"component": "kubelet"}), "needs to be unset"),
    "name a host": (
        told(about("Node", "own"), deprecatedSource={"component": "istio-cni-controller", "host": "x"}), "needs to be unset"
    ),
    "speak of a Secret": (told(about("Secret", "x", namespace="default")), "another Event"),
    "speak of a pod": (told(about("Pod", "x", namespace="default")), "another Event"),
    "leave an Event for ever": (
        told(about("Node", "own"), metadata={"generateName": "x", "finalizers": ["x.example/y"]}), "another Event"
    ),
    "write a book of an Event": (told(about("Node", "own"), note="x" * 500_000), "at most 1024 characters"),
    "write a book for a reason": (told(about("Node", "own"), reason="x" * 500_000), "at most 128 characters"),
    "write a book for a name": (told(about("Node", "x" * 500_000)), "another Event"),
    "write a book for an instance": (told(about("Node", "own"), reportingInstance="x" * 500_000), "reportingInstance"),
    "tell of lines": (told(about("Node", "own"), reason="NodeNotReady\nx"), "another Event"),
    "bind for ever": (binding(PSP, metadata={"finalizers": ["x.example/y"]}), "another RoleBinding"),
    "bind itself": (binding(PSP, name="istio-cni-controller"), "another RoleBinding"),
    "bind another's account": (binding(PSP, namespace="default"), "another RoleBinding"),
}  # fmt: skip

BY_AN_AGENT: dict[str, tuple[Request, str]] = {
    "report of another node": (applied_report("others"), "expected that of node others"),
    "report its status": (of_report("others", condition("False")), "expected that of node others"),
    "keep its own report for ever": (applied_report("own", finalizers=["x.example/y"]), "saw labels"),
    "make a report of no node": (Request("POST", REPORTS, nameless()), "of an agent on node own"),
    "label it": (applied_report("own", labels={"a": "b"}), "saw labels"),
    "annotate it": (applied_report("own", annotations={"a": "b"}), "saw labels"),
    "have it go with another node": (applied_report("own", ownerReferences=owned("others")), "saw labels"),
    "keep its node": (applied_report("own", ownerReferences=owned("own", blockOwnerDeletion=True)), "saw labels"),
    "control it": (applied_report("own", ownerReferences=owned("own", controller=True)), "saw labels"),
    "speak as the kubelet": (event(about("Node", "own"), reportingController="kubelet"), "another Event"),
    "be shown as the kubelet": (event(about("Node", "own"), deprecatedSource={"component": "kubelet"}), "needs to be unset"),
    "speak for another node's agent": (event(about("Node", "own"), reportingInstance="others"), "reporting instance others"),
    "speak of another node": (event(about("Node", "others")), "about this node"),
    "speak of a node elsewhere": (event(about("Node", "own"), "kube-system"), "about this node"),
    "speak of a Secret": (event(about("Secret", "x", namespace="default")), "about a pod"),
    "speak of another namespace's pod": (event(about("Pod", "x", namespace="kube-system")), "about a pod"),
    "speak of another kind of Pod": (event(about("Pod", "x", "evil/v1", namespace="default")), "about a pod"),
    "speak of more": (event(about("Node", "own"), related=about("Node", "others")), "another Event"),
    "say that it goes on": (
        event(about("Node", "own"), series={"count": 9, "lastObservedTime": "2026-01-01T00:00:00.000000Z"}), "another Event"
    ),
    "leave an Event for ever": (
        event(about("Node", "own"), metadata={"generateName": "x", "finalizers": ["x.example/y"]}), "another Event"
    ),
    "write a book for a name": (event(about("Pod", "x" * 500_000, namespace="default")), "another Event"),
    "write a book for a field": (event(about("Pod", "x", namespace="default", fieldPath="x" * 500_000)), "another Event"),
    "write a book for a uid": (event(about("Pod", "x", namespace="default") | {"uid": "x" * 500_000}), "another Event"),
    "delete a pod of another node": (delete("far"), "expected that of the node of the pod"),
    "delete one that is on none": (delete("new"), "expected that of the node of the pod"),
    "delete one that has no sidecar": (delete("plain"), "saw a pod without a sidecar"),
}  # fmt: skip

UNBOUND: dict[str, tuple[Request, str]] = {
    "report of a node": (applied_report("own"), "(none)"),
    "report of a node without a name": (of_report("own", condition("False")), "(none)"),
    "make a report of no node": (Request("POST", REPORTS, nameless()), "(none)"),
    "speak of a node": (event(about("Node", "own")), "(none)"),
    "speak of a pod": (event(about("Pod", "x", namespace="default"), reportingInstance=""), "reportingInstance"),
    "delete a pod": (delete("meshed"), "(none)"),
    "delete a pod that is on no node": (delete("new"), "(none)"),
}
OUTSIDE: dict[str, tuple[Request, str]] = {
    what: (Request(method, path, body, kind), "cannot")
    for what, method, path, body, kind in (
        ("evict a pod", "POST", f"{PODS}/meshed/eviction", {"metadata": {"name": "meshed"}}, JSON),
        ("run a command in a pod", "POST", f"{PODS}/meshed/exec", None, JSON),
        ("attach to a pod", "POST", f"{PODS}/meshed/attach", None, JSON),
        ("reach a pod's port", "POST", f"{PODS}/meshed/portforward", None, JSON),
        ("ask a pod", "GET", f"{PODS}/meshed/proxy/", None, JSON),
        ("read a pod's log", "GET", f"{PODS}/meshed/log", None, JSON),
        ("debug a pod", "PATCH", f"{PODS}/meshed/ephemeralcontainers", {"spec": {}}, STRATEGIC),
        ("resize a pod", "PATCH", f"{PODS}/meshed/resize", {"spec": {}}, STRATEGIC),
        ("bind a pod", "POST", f"{PODS}/new/binding", {"target": {"name": "own"}}, JSON),
        ("change a pod", "PATCH", f"{PODS}/meshed", {"metadata": {"labels": {"a": "b"}}}, MERGE),
        ("report of a pod", "PATCH", f"{PODS}/meshed/status", {"status": {"phase": "Failed"}}, MERGE),
        ("make a pod", "POST", PODS, {"metadata": {"generateName": "x"}}, JSON),
        ("delete all pods", "DELETE", PODS, None, JSON),
        ("report of a node", "PATCH", f"{NODE}/status", {"status": {"capacity": {"x": "1"}}}, MERGE),
        ("ask a kubelet", "GET", f"{NODE}/proxy/pods", None, JSON),
        ("delete a node", "DELETE", NODE, None, JSON),
        ("make a node", "POST", "/api/v1/nodes", {"metadata": {"name": "x"}}, JSON),
        (
            "make a node by applying it",
            "PATCH",
            "/api/v1/nodes/x",
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "x"}},
            APPLY,
        ),
        ("replace a node", "PUT", NODE, {"metadata": {"name": "own"}}, JSON),
        ("have another token", "POST", f"{ACCOUNTS}/istio-cni-node/token", {"spec": {}}, JSON),
        ("have its own token again", "POST", f"{ACCOUNTS}/istio-cni-controller/token", {"spec": {}}, JSON),
        ("act as another", "POST", "/api/v1/namespaces/kube-system/serviceaccounts/x/token", {"spec": {}}, JSON),
        ("read a Secret", "GET", "/api/v1/namespaces/default/secrets/x", None, JSON),
        ("read a ConfigMap", "GET", f"/api/v1/namespaces/{NAMESPACE}/configmaps/kube-root-ca.crt", None, JSON),
        ("report of the DaemonSet", "PATCH", f"{DAEMONSET}/status", {"status": {"numberReady": 9}}, MERGE),
        ("delete the DaemonSet", "DELETE", DAEMONSET, None, JSON),
        ("make another DaemonSet", "POST", DAEMONSET.rpartition("/")[0], {"metadata": {"generateName": "x"}}, JSON),
        ("delete a report", "DELETE", f"{REPORTS}/own", None, JSON),
        ("delete a resource", "DELETE", CONTROL_PLANE, None, JSON),
        ("make a resource", "POST", CONTROL_PLANE.rpartition("/")[0], {"metadata": {"generateName": "x"}}, JSON),
        ("delete the Lease", "DELETE", f"{LEASES}/istio-cni-controller", None, JSON),
        (
            "lead in another namespace",
            "POST",
            LEASES.replace(NAMESPACE, "kube-system"),
            {"metadata": {"name": "istio-cni-controller"}},
            JSON,
        ),
        ("change an Event", "PATCH", "/api/v1/namespaces/default/events/x", {"message": "x"}, MERGE),
        ("delete Events", "DELETE", "/api/v1/namespaces/default/events", None, JSON),
        ("take the policies away", "DELETE", f"{POLICIES}/istio-cni-node", None, JSON),
        (
            "bind more to itself",
            "POST",
            BINDINGS.replace(NAMESPACE, "kube-system"),
            {"metadata": {"generateName": "x"}},
            JSON,
        ),
        (
            "have a role",
            "POST",
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            {"metadata": {"generateName": "x"}},
            JSON,
        ),
    )
}

ATTACKS = {"controller": BY_THE_CONTROLLER, "agent": BY_AN_AGENT, "unbound": UNBOUND}
NO_RIGHT = {(whose, what): OUTSIDE[what] for whose in ("controller", "agent") for what in OUTSIDE}

WORK: dict[str, dict[str, Request]] = {
    "controller": {
        "put the taint on": taints(OTHER, OURS),
        "leave the taints": taints(OTHER),
        "roll out another tag": of_container(image=f"{HUB}/install-cni:2", imagePullPolicy="Never"),
        "roll out a digest": of_container(image=f"{HUB}/install-cni@{DIGEST}"),
        "roll out both": of_container(image=f"{HUB}/install-cni:2@{DIGEST}"),
        "roll out an allowed hub": of_container(image="mirror.example/install-cni:2"),
        "set resources": of_container(resources={"limits": {"memory": "1Gi"}}),
        "set CNI's directories": directories("/var/lib/cni/bin", "/etc/kubernetes/cni/net.d"),
        "set allowed directories": directories("/opt/plugins", "/etc/cni/multus/net.d/"),
        "annotate pods": annotated(**{"prometheus.io/scrape": "true", "cluster-autoscaler.kubernetes.io/safe": "x"}),
        "annotate pods as allowed": annotated(**{"of.example/a": "b", "scan.example/b": "c", "more": "1"}),
        "park": of_pods({"nodeSelector": {"cni.istio.io/parked": "true"}}),
        "write down what is laid over": of_daemonset({"metadata": {"annotations": {"cni.istio.io/resource-values": "{}"}}}),
        "have an agent made anew": delete("agent", NAMESPACE),
        "lead": lease("istio-cni-controller"),
        "hold a resource": of_control_plane(
            {"metadata": {"finalizers": ["of.others/x", "cni.istio.io/uninstall"], "annotations": {"cni.istio.io/x": "y"}}}
        ),
        "report": of_control_plane({"status": {"status": {"cni": {"status": "HEALTHY"}}}}, "/status"),
        "speak for an agent": of_report("own", condition("False")),
        "make a report": Request("POST", REPORTS, report("x", ownerReferences=owned("x"))),
        "tell of a node": told(about("Node", "own")),
        "tell of a resource": told(ICP),
        "bind a role": binding(PSP),
    },
    "agent": {
        "report": applied_report("own", ownerReferences=owned("own")),
        "report its status": of_report("own", {"state": "NotInstalled", **condition("True")}),
        "tell of its node": event(about("Node", "own")),
        "tell of a pod": event(about("Pod", "x", namespace="kube-system"), "kube-system"),
        "delete a pod": delete("meshed"),
    },
}  # fmt: skip


def refused(answer: Answer, why: str) -> bool:
    return answer.status in (403, 422) and why in answer.message


@pytest.mark.parametrize(("whose", "what"), [(whose, what) for whose, its in ATTACKS.items() for what in its])
def test_stolen_token_is_denied(installed: Cluster, tokens: Mapping[str, str], whose: str, what: str) -> None:
    request, why = ATTACKS[whose][what]
    until(lambda: ask(installed, tokens[whose], request).status >= 400, SOON, f"{what} is refused")
    answer = ask(installed, tokens[whose], request)
    assert refused(answer, why), answer


@pytest.mark.parametrize(("whose", "what"), NO_RIGHT)
def test_role_does_not_grant_the_right(installed: Cluster, tokens: Mapping[str, str], whose: str, what: str) -> None:
    answer = ask(installed, tokens[whose], OUTSIDE[what][0])
    assert (answer.status, "cannot" in answer.message) == (403, True), answer


@pytest.mark.parametrize(("whose", "what"), [(whose, what) for whose, its in WORK.items() for what in its])
def test_account_is_allowed_its_own_work(installed: Cluster, tokens: Mapping[str, str], whose: str, what: str) -> None:
    canary, why = next(iter(ATTACKS[whose].values()))
    until(lambda: refused(ask(installed, tokens[whose], canary), why), SOON, "the policies are in force")
    answer = ask(installed, tokens[whose], WORK[whose][what])
    assert answer.status < 300, answer


def test_an_agent_may_name_its_node_as_far_as_an_event_can(installed: Cluster, tokens: Mapping[str, str]) -> None:
    canary, why = next(iter(ATTACKS["agent"].values()))
    until(lambda: refused(ask(installed, tokens["agent"], canary), why), SOON, "the policies are in force")
    name = "n" * 128 + "." + "m" * 124
    installed.core.create_node({"metadata": {"name": name}})  # type: ignore[arg-type]
    bound = ("--bound-object-kind=Node", f"--bound-object-name={name}")
    token = installed.kubectl("create", "token", "istio-cni-node", f"--namespace={NAMESPACE}", *bound).strip()
    try:
        assert ask(installed, token, event(about("Node", name), reportingInstance=name[:128])).status < 300
        for other in (name[:127], "own"):
            assert refused(
                ask(installed, token, event(about("Node", name), reportingInstance=other)), "reporting instance"
            )
    finally:
        installed.kubectl("delete", "node", name)


def test_the_api_server_reports_no_type_error_in_the_policies(installed: Cluster, render: Render) -> None:
    names = {each["metadata"]["name"] for each in render({"cni": VALUES}).objects if each["kind"].endswith("Policy")}
    assert len(names) == 11
    command = [
        "/usr/bin/setpriv", "--pdeathsig=KILL", str(KUBE.folder / "kube-controller-manager"),
        f"--kubeconfig={installed.folder / 'admin.kubeconfig'}", "--leader-elect=false", "--secure-port=0",
        "--controllers=validatingadmissionpolicy-status-controller",
    ]  # fmt: skip

    def checked() -> dict[str, Any]:
        kind = "validatingadmissionpolicies"
        found = json.loads(installed.kubectl("get", kind, "--output=json"))["items"]
        return {
            each["metadata"]["name"]: each["status"].get("typeChecking", {})
            for each in found
            if each.get("status", {}).get("observedGeneration") == each["metadata"]["generation"]
        }

    with (installed.folder / "kube-controller-manager.process.log").open("w") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            until(lambda: checked().keys() >= names, SOON, "each policy was looked at")
        finally:
            running.kill()
            running.wait()
    assert {name: said for name, said in checked().items() if name in names and said} == {}


def test_pod_deletion_requires_a_policy_that_bounds_it_to_the_node(refuse: Refuse, render: Render) -> None:
    old, new = ("--kube-version=1.29", "--kube-version=1.30")
    assert "PolicyBinding" not in " ".join(render({}, old).kinds)
    assert render({"cni": {"repairMode": "delete"}}, new).kinds.count("ValidatingAdmissionPolicy") == 10
    said = refuse({"cni": {"repairMode": "delete"}}, old)
    assert re.search(r"cni.repairMode: saw delete for Kubernetes v?1.29.*expected Kubernetes 1.30 or newer", said)
