"""`generate`, `diff` and `apply` against a real API server."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from installer.manifest.command import NO_HUB
from tests.chart.helm import CHART
from tests.manifest.conftest import OF_THE_GUIDE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.manifest.conftest import Manifest
    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver

HERE = "--namespace=istio-system"


def admin(cluster: Cluster) -> str:
    return f"--kubeconfig={cluster.folder / 'admin.kubeconfig'}"


def settings(cluster: Cluster) -> dict[str, str]:
    daemonset = json.loads(cluster.kubectl("get", "daemonset/istio-cni-node", HERE, "--output=json"))
    (container,) = daemonset["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each["value"] for each in container["env"] if "value" in each}


def resource(cluster: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cluster.kubectl("get", "icp/istio-cni", HERE, "--output=json"))
    return found


def test_kubectl_applies_what_is_generated(cluster: Cluster, manifest: Manifest, written: Path) -> None:
    made = manifest("generate", "-f", str(written), "--create-namespace", "--set=values.cni.cniBinDir=/x").stdout
    command = cluster.kubectl_command(admin(cluster), "apply", "--filename=-")
    first = subprocess.run(command, input=made, capture_output=True, text=True, timeout=60, check=False)
    assert "ensure CRDs are installed first" in first.stderr, "kubectl looks up every kind before it applies any"
    subprocess.run(command, input=made, capture_output=True, text=True, timeout=60, check=True)
    assert settings(cluster)["LOG_LEVEL"] == "info"
    assert resource(cluster)["spec"]["values"]["cni"]["cniBinDir"] == "/x"
    assert manifest("diff", "-f", str(written), admin(cluster), "--set=cniBinDir=/x").returncode == 0


def test_diff_shows_all_then_the_change_then_nothing(cluster: Cluster, manifest: Manifest, written: Path) -> None:
    own = ("-f", str(written), admin(cluster))
    before = manifest("diff", *own, "--create-namespace")
    assert before.returncode == 1, before.stderr
    assert "+++ install.istio.io.v1alpha2.IstioControlPlane.istio-system.istio-cni" in before.stdout
    assert "+++ apps.v1.DaemonSet.istio-system.istio-cni-node" in before.stdout
    assert "CustomResourceDefinition..istiocontrolplanes.install.istio.io" in before.stdout
    assert cluster.kubectl("get", "crd,clusterrole", "--output=name").count("istio") == 0, "nothing is changed"

    applied = manifest("apply", *own, "--create-namespace")
    assert applied.returncode == 0, applied.stderr
    assert "istiocontrolplane.install.istio.io/istio-cni created" in applied.stdout
    assert settings(cluster)["EXCLUDE_NAMESPACES"] == "istio-system,kube-system,foo_ns,bar_ns"

    same = manifest("diff", *own)
    assert (same.returncode, same.stdout, same.stderr) == (0, "", f"note: {NO_HUB}\n")

    changed = manifest("diff", *own, "--set=unvalidatedValues.cni.logLevel=debug,values.cni.podAnnotations.a=b")
    assert changed.returncode == 1, changed.stderr
    lines = changed.stdout.splitlines()
    assert "-          value: info" in lines
    assert "+          value: debug" in lines
    assert "+        a: b" in lines
    assert "managedFields" not in changed.stdout
    assert settings(cluster)["LOG_LEVEL"] == "info", "nothing is changed"

    again = manifest("apply", *own, "--set=unvalidatedValues.cni.logLevel=debug,values.cni.podAnnotations.a=b")
    assert again.returncode == 0, again.stderr
    assert settings(cluster)["LOG_LEVEL"] == "debug"
    back = manifest("diff", *own)
    assert "-        a: b" in back.stdout.splitlines(), "what a manifest no longer says is taken out"

    out = cluster.kubectl("get", "icp/istio-cni", HERE, "--output=yaml")
    assert manifest("diff", "-f", "-", admin(cluster), stdin=out).returncode == 0, "a resource as the cluster shows it"


def test_diff_exits_with_2_and_the_reason_on_errors(cluster: Cluster, manifest: Manifest) -> None:
    wrong = manifest("diff", admin(cluster), "--set=values.cni.logLevl=x")
    assert wrong.returncode == 2
    assert "is logLevel meant?" in wrong.stderr
    cluster.service_account("default", "nobody")
    kubeconfig = cluster.kubeconfig("nobody", token=cluster.token("default", "nobody"))
    refused = manifest("diff", f"--kubeconfig={kubeconfig}")
    assert refused.returncode == 2
    assert "forbidden" in refused.stderr
    gone = manifest("diff", admin(cluster), "--context=nowhere")
    assert gone.returncode == 2
    assert 'context "nowhere" does not exist' in gone.stderr
    no_answer = manifest("diff", admin(cluster), "--create-namespace", KUBECTL_EXTERNAL_DIFF="false")
    assert no_answer.returncode == 2, "status 1 without a difference is none"
    missing = manifest("diff", admin(cluster), "--kubectl=/nowhere/kubectl")
    assert missing.returncode == 2
    assert "--kubectl /nowhere/kubectl: no such program" in missing.stderr


def test_apply_into_a_missing_namespace_fails_with_the_remedy(cluster: Cluster, manifest: Manifest) -> None:
    failed = manifest("apply", "-f", "-", admin(cluster), stdin=OF_THE_GUIDE)
    assert failed.returncode == 1
    assert 'namespaces "istio-system" not found' in failed.stderr


def test_enabled_false_is_applied_and_keeps_the_agents(cluster: Cluster, manifest: Manifest, written: Path) -> None:
    own, off = ("-f", str(written), admin(cluster)), "--set=cni.enabled=false"
    applied = manifest("apply", *own, "--create-namespace")
    assert applied.returncode == 0, applied.stderr
    agents = cluster.kubectl("get", "daemonset/istio-cni-node", HERE, "--output=json")

    changed = manifest("diff", *own, off)
    assert changed.returncode == 1, changed.stderr
    assert [line for line in changed.stdout.splitlines() if line.startswith(("+  ", "-  "))] == [
        *["-  generation: 1", "+  generation: 2"],
        *["-    enabled: true", "+    enabled: false"],
    ]
    turned_off = manifest("apply", *own, off)
    assert turned_off.returncode == 0, turned_off.stderr
    assert resource(cluster)["spec"]["cni"]["enabled"] is False
    assert cluster.kubectl("get", "daemonset/istio-cni-node", HERE, "--output=json") == agents, "they take it out"
    assert manifest("diff", *own, off).returncode == 0
    assert manifest("diff", *own).returncode == 1, "and back"


def test_enabled_false_starts_no_agents_where_there_are_none(cluster: Cluster, manifest: Manifest) -> None:
    off = (admin(cluster), "--set=cni.enabled=false")
    assert "+++ install.istio.io.v1alpha2.IstioControlPlane.istio-system.istio-cni" in manifest("diff", *off).stdout
    applied = manifest("apply", *off, "--create-namespace")
    assert applied.returncode == 0, applied.stderr
    assert resource(cluster)["spec"]["cni"] == {"enabled": False}
    others = cluster.kubectl("get", "daemonset,deployment,clusterrole", "--all-namespaces", "--output=name")
    assert "istio" not in others


def test_diff_and_apply_render_for_the_clusters_version_by_default(
    cluster: Cluster, manifest: Manifest, tmp_path: Path
) -> None:
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    (chart / "templates" / "version.yaml").write_text(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: version, namespace: default}, "
        "data: {version: {{ .Capabilities.KubeVersion.Version }}}}"
    )
    own = (admin(cluster), f"--chart={chart}", "--create-namespace")
    version = json.loads(cluster.kubectl("get", "--raw", "/version"))["gitVersion"]
    applied = manifest("apply", *own)
    assert applied.returncode == 0, applied.stderr
    assert cluster.kubectl("get", "configmap/version", "--output=jsonpath={.data.version}") == version
    assert manifest("diff", *own).returncode == 0

    given = manifest("diff", *own, "--kube-version=1.29")
    assert given.returncode == 1, given.stderr
    assert f"-  version: {version}" in given.stdout.splitlines()
    assert "+  version: v1.29.0" in given.stdout.splitlines()


def test_an_unreachable_cluster_is_named(cluster: Cluster, manifest: Manifest) -> None:
    nobody = cluster.kubeconfig("nobody", token="any", port=1)  # noqa: S106
    for command, status in (("diff", 2), ("apply", 1)):
        done = manifest(command, f"--kubeconfig={nobody}")
        assert (done.returncode, done.stdout) == (status, "")
        assert done.stderr.startswith("Error: kubectl: "), done.stderr
        assert "127.0.0.1:1 was refused" in done.stderr
