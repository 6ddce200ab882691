"""The custom resource definitions on a real API server: what is kept, what is filled in, what is refused and where."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from installer.config.control_plane import read_control_plane
from plugin.backend import Backend
from tests.chart.helm import CHART
from tests.chart.references import IMAGES, WRONG_HUBS, WRONG_TAGS
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chart.conftest import Applied
    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver

DEFINITIONS = sorted((CHART / "crds").glob("*.yaml"))
NOW = "2026-01-02T03:04:05Z"

OF_THE_GUIDE = """
apiVersion: install.istio.io/v1alpha2
kind: IstioControlPlane
metadata:
  name: guide
spec:
  cni:
    enabled: true
    components:
      cni:
        namespace: kube-system
  values:
    cni:
      excludeNamespaces:
       - istio-system
       - kube-system
       - foo_ns
       - bar_ns
  unvalidatedValues:
    cni:
      logLevel: info
"""


@pytest.fixture(scope="module", autouse=True)
def _defined(cluster: Cluster) -> None:
    cluster.kubectl("apply", "--server-side", "--filename", str(CHART / "crds"))
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")


def described(path: str, schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, each in schema.get("properties", {}).items():
        yield f"{path}.{name}", each
        yield from described(f"{path}.{name}", each)
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from described(f"{path}[]", schema[key])


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.stem)
def test_the_definitions_are_structural_and_each_field_is_documented(cluster: Cluster, path: Any) -> None:
    definition = yaml.safe_load(path.read_text())
    kept = json.loads(cluster.kubectl("get", "crd", definition["metadata"]["name"], "--output=json"))
    conditions = {each["type"]: each["status"] for each in kept["status"]["conditions"]}
    assert conditions.get("NonStructuralSchema", "False") == "False"
    assert conditions["NamesAccepted"] == "True"
    (version,) = definition["spec"]["versions"]
    assert version["subresources"] == {"status": {}}
    fields = dict(described("", version["schema"]["openAPIV3Schema"]))
    assert len(fields) > 20
    assert [name for name, each in fields.items() if "description" not in each] == []


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("istiocninode.status.conditions.message", "Cause and remedy, in sentences."),
        ("icp.spec.values.cni.excludeNamespaces", "Namespaces whose pods the agent does not redirect."),
    ],
)
def test_kubectl_explains_a_field(cluster: Cluster, field: str, said: str) -> None:
    command = cluster.kubectl_command(f"--kubeconfig={cluster.folder / 'admin.kubeconfig'}", "explain", field)

    def is_explained() -> bool:  # the API server publishes its documents a moment after it serves the resource
        return said in subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout

    until(is_explained, 30, f"kubectl explains {field}")


def test_the_guides_manifest_is_accepted_unchanged(cluster: Cluster, apply: Applied) -> None:
    guide = yaml.safe_load(OF_THE_GUIDE)
    done = apply(guide, "--validate=strict")
    assert done.returncode == 0, done.stderr
    kept = json.loads(cluster.kubectl("get", "icp", "guide", "--output=json"))
    assert kept["spec"] == guide["spec"]
    asked = read_control_plane(kept)
    assert asked.given == {
        "excludeNamespaces": ["istio-system", "kube-system", "foo_ns", "bar_ns"],
        "logLevel": "info",
    }
    assert asked.namespace == "kube-system"


def control_plane(**cni: Any) -> dict[str, Any]:
    return {
        "apiVersion": "install.istio.io/v1alpha2",
        "kind": "IstioControlPlane",
        "metadata": {"name": "wrong", "namespace": "default"},
        "spec": {"values": {"cni": cni}},
    }


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"excludeNamespaces": "istio-system"}, "excludeNamespaces"),
    ({"excludeNamespaces": ["ok", "Not Ok"]}, "excludeNamespaces[1]"),
    ({"logLevel": "loud"}, "logLevel"),
    ({"tag": 1.5}, "tag"),
    ({"cniBinDir": "opt/cni/bin"}, "cniBinDir"),
    ({"cniConfDir": "/"}, "cniConfDir"),
    ({"cniBinDir": "/opt/cni", "cniConfDir": "/opt/cni"}, "cniConfDir"),
    ({"cniConfFileName": "/etc/cni/net.d/10-x.conflist"}, "cniConfFileName"),
    ({"podAnnotations": {"a": 1}}, "podAnnotations.a"),
]


@pytest.mark.parametrize(("cni", "path"), WRONG)
def test_a_wrong_value_is_refused_with_its_path(apply: Applied, cni: dict[str, Any], path: str) -> None:
    done = apply(control_plane(**cni))
    assert done.returncode != 0
    assert f"spec.values.cni.{path}:" in done.stderr


WRONG_IMAGES = [("tag", each) for each in WRONG_TAGS.values()] + [("hub", each) for each in WRONG_HUBS.values()]


@pytest.mark.parametrize(("name", "value"), WRONG_IMAGES)
def test_an_invalid_image_is_refused(apply: Applied, name: str, value: str | int) -> None:
    resource = control_plane(**{name: value})
    resource["spec"][name] = value
    done = apply(resource)
    assert done.returncode != 0
    assert f"spec.values.cni.{name}:" in done.stderr
    assert f"spec.{name}:" in done.stderr


@pytest.mark.parametrize(("hub", "tag"), [*IMAGES, ("", "")])
def test_an_image_with_tag_digest_or_both_is_accepted(apply: Applied, hub: str, tag: str | int) -> None:
    resource = control_plane(hub=hub, tag=tag) | {"metadata": {"name": "image", "namespace": "default"}}
    resource["spec"] |= {"hub": hub, "tag": tag}
    done = apply(resource)
    assert done.returncode == 0, done.stderr


def put_status(cluster: Cluster, apply: Applied, resource: dict[str, Any], status: dict[str, Any]) -> Any:
    """Create the object, then write its status by its subresource, and return what kubectl says."""
    created = apply(resource, "--server-side")
    assert created.returncode == 0, created.stderr
    return apply(resource | {"status": status}, "--server-side", "--subresource=status", "--force-conflicts")


CONDITION = {"type": "Ready", "status": "True", "reason": "Redirecting", "message": "by nft", "lastTransitionTime": NOW}


def test_the_status_of_a_control_plane_has_the_shape_of_1_4(cluster: Cluster, apply: Applied) -> None:
    status = {
        "observedGeneration": 1,
        "status": {"cni": {"version": "0.1.0", "status": "UPDATING", "statusString": "2 of 3 nodes", "error": ""}},
        "conditions": [CONDITION | {"status": "False", "reason": "Updating", "observedGeneration": 1}],
        "nodes": {"total": 3, "ready": 2, "updating": 1, "failed": 0, "unknown": 0},
        "unhealthyNodes": [{"node": "node1", "reason": "NotInstalled", "message": "no network configuration"}],
    }
    resource = control_plane() | {"metadata": {"name": "shape", "namespace": "default"}}
    done = put_status(cluster, apply, resource, status)
    assert done.returncode == 0, done.stderr
    kept = json.loads(cluster.kubectl("get", "icp", "shape", "--output=json"))
    assert kept["status"] == status
    shown = cluster.kubectl("get", "icp", "shape", "--output=wide").splitlines()
    assert shown[0].split() == ["NAME", "CNI", "VERSION", "NODES", "READY", "REASON", "MESSAGE", "AGE"]
    assert shown[1].split()[:7] == ["shape", "UPDATING", "0.1.0", "3", "2", "Updating", "2"]


@pytest.mark.parametrize(
    ("status", "path"),
    [
        ({"status": {"cni": {"status": "FINE"}}}, "status.status.cni.status"),
        ({"nodes": {"ready": -1}}, "status.nodes.ready"),
        ({"conditions": [CONDITION | {"type": "Glad"}]}, "status.conditions[0].type"),
        ({"conditions": [CONDITION | {"reason": "two words"}]}, "status.conditions[0].reason"),
        (
            {"unhealthyNodes": [{"node": f"node{number}", "reason": "NoAgent"} for number in range(11)]},
            "status.unhealthyNodes",
        ),
    ],
)
def test_invalid_control_plane_status_is_rejected(
    cluster: Cluster, apply: Applied, status: dict[str, Any], path: str
) -> None:
    resource = control_plane() | {"metadata": {"name": "shape", "namespace": "default"}}
    done = put_status(cluster, apply, resource, status)
    assert done.returncode != 0
    assert f"{path}:" in done.stderr


def node(name: str) -> dict[str, Any]:
    return {"apiVersion": "cni.istio.io/v1alpha1", "kind": "IstioCNINode", "metadata": {"name": name}}


STATUS: dict[str, Any] = {
    "state": "Installed",
    "version": "0.1.0",
    "plugin": {"path": "/opt/cni/bin/istio-cni", "sha256": "0" * 64},
    "conflist": {"directory": "/etc/cni/net.d", "file": "10-k8s-istio-cni.conflist", "form": "Owned"},
    "backend": {"name": "nft", "missing": [{"feature": "TPROXY", "reason": "no module"}]},
    "preflight": [
        {"name": "nft", "usable": True, "missing": [{"feature": "TPROXY", "reason": "no module"}]},
        {"name": "iptables-legacy", "usable": False, "missing": [{"feature": "NAT", "reason": "no table nat"}]},
    ],
    "repairs": {"count": 3, "last": {"time": NOW, "file": "/etc/cni/net.d/10-k8s.conflist", "reason": "entry gone"}},
    "controlPlane": {"namespace": "istio-system", "name": "mesh", "uid": "a-b", "generation": 2},
    "conditions": [CONDITION],
}


def test_a_full_node_report_is_accepted(cluster: Cluster, apply: Applied) -> None:
    done = put_status(cluster, apply, node("worker-1.example"), STATUS)
    assert done.returncode == 0, done.stderr
    kept = json.loads(cluster.kubectl("get", "istiocninodes", "worker-1.example", "--output=json"))
    assert kept["status"] == STATUS
    header, row = cluster.kubectl("get", "istiocninodes", "worker-1.example").splitlines()
    columns = ["NAME", "READY", "STATE", "VERSION", "BACKEND", "CONFLIST", "REPAIRS", "REASON", "MESSAGE", "AGE"]
    assert header.split() == columns
    shown = ["worker-1.example", "True", "Installed", "0.1.0", "nft", "10-k8s-istio-cni.conflist", "3", "Redirecting"]
    assert row.split()[:8] == shown


def test_a_status_is_written_by_its_subresource_alone(cluster: Cluster, apply: Applied) -> None:
    assert apply(node("quiet") | {"status": STATUS}, "--server-side").returncode == 0
    assert "status" not in json.loads(cluster.kubectl("get", "istiocninodes", "quiet", "--output=json"))


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"state": "Broken"}, "status.state"),
        ({"conflist": None}, "status.conflist"),
        ({"conflist": {"file": "a.conf", "form": "Split"}}, "status.conflist.form"),
        ({"backend": {"name": "ebpf"}}, "status.backend.name"),
        ({"plugin": {"path": "/x", "sha256": "abc"}}, "status.plugin.sha256"),
        ({"repairs": {"count": -1}}, "status.repairs.count"),
        ({"conditions": [{"type": "Ready"}]}, "status.conditions[0].status"),
    ],
)
def test_invalid_node_report_is_rejected(cluster: Cluster, apply: Applied, change: dict[str, Any], path: str) -> None:
    status = {name: value for name, value in (STATUS | change).items() if value is not None}
    done = put_status(cluster, apply, node("wrong"), status)
    assert done.returncode != 0
    assert f"{path}:" in done.stderr


def test_a_node_may_report_any_backend_of_the_agent() -> None:
    (version,) = yaml.safe_load((CHART / "crds" / "istiocninode.yaml").read_text())["spec"]["versions"]
    status = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    every = [each.value for each in Backend]
    assert status["backend"]["properties"]["name"]["enum"] == every
    assert status["preflight"]["items"]["properties"]["name"]["enum"] == every
    assert status["preflight"]["maxItems"] == len(every)
