"""The IstioControlPlane on a real API server: the guide's own manifest works, and a wrong type never gets in."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from installer.config.control_plane import GROUP, KIND, PLURAL, VERSION, InvalidControlPlaneError, read_control_plane
from tests.config.test_control_plane import OF_THE_GUIDE
from tests.kubernetes.conftest import CHART

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver

CRD = CHART / "crds" / "istiocontrolplane.yaml"


@pytest.fixture(scope="module")
def served(cluster: Cluster) -> Iterator[Cluster]:
    cluster.kubectl("apply", "--filename", str(CRD))
    cluster.kubectl("wait", "--for=condition=Established", f"crd/{PLURAL}.{GROUP}", "--timeout=30s")
    yield cluster
    cluster.kubectl("delete", "icp", "--all", "--namespace=default")


def apply(cluster: Cluster, name: str, resource: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    named = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND} | resource | {"metadata": {"name": name}}
    admin = f"--kubeconfig={cluster.folder / 'admin.kubeconfig'}"
    command = cluster.kubectl_command(admin, "apply", "--filename=-")
    return subprocess.run(command, input=json.dumps(named), capture_output=True, text=True, timeout=60, check=False)


def test_the_guides_manifest_is_kept_as_it_is_written(served: Cluster) -> None:
    guide = yaml.safe_load(OF_THE_GUIDE)
    guide["spec"]["trafficManagement"] = {"enabled": False}
    done = apply(served, "guide", guide)
    assert done.returncode == 0, done.stderr
    kept = json.loads(served.kubectl("get", "icp", "guide", "--output=json"))
    assert kept["spec"] == guide["spec"]
    assert read_control_plane(kept) == read_control_plane(guide)
    columns = ["NAME", "CNI", "VERSION", "NODES", "READY", "REASON", "AGE"]
    assert served.kubectl("get", "icp", "guide").split()[:7] == columns


@pytest.mark.parametrize(
    ("cni", "path"),
    [
        ({"excludeNamespaces": "istio-system"}, "spec.values.cni.excludeNamespaces"),
        ({"logLevel": "loud"}, "spec.values.cni.logLevel"),
        ({"podAnnotations": {"a": 1}}, "spec.values.cni.podAnnotations.a"),
        ({"cniBinDir": ["/opt"]}, "spec.values.cni.cniBinDir"),
    ],
)
def test_a_wrong_type_is_refused_with_its_path(served: Cluster, cni: dict[str, Any], path: str) -> None:
    done = apply(served, "wrong", {"spec": {"values": {"cni": cni}}})
    assert done.returncode != 0
    assert path in done.stderr


def test_an_unknown_value_is_accepted_for_the_status_to_name_it(served: Cluster) -> None:
    assert apply(served, "unknown", {"spec": {"values": {"cni": {"excludeNamespace": ["a"]}}}}).returncode == 0
    kept = json.loads(served.kubectl("get", "icp", "unknown", "--output=json"))
    with pytest.raises(InvalidControlPlaneError, match=r"is excludeNamespaces meant\?"):
        read_control_plane(kept)
