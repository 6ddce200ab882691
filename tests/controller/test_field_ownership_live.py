"""The chart applied on the server's side, as helm 4, Flux and `kubectl apply --server-side` do it, beside a resource (F39)."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from installer.controller import field_ownership
from tests.chart.helm import CHART, Rendered, helm
from tests.controller.stage import NAMESPACE, SOON
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.controller.conftest import Run
    from tests.controller.stage import Stage

pytestmark = pytest.mark.apiserver

CONTROLLER = "istio-cni-controller"
# What releases before applied, whatever the resource set.
ALL = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: istio-cni-node, namespace: mesh, annotations: {cni.istio.io/resource-values: '{}'}}
spec:
  template:
    metadata: {annotations: {}}
    spec:
      nodeSelector: {kubernetes.io/os: linux}
      volumes:
      - {name: cni-bin-dir, hostPath: {path: /opt/cni/bin}}
      - {name: cni-conf-dir, hostPath: {path: /etc/cni/net.d}}
      containers:
      - name: install-cni
        image: registry.example/mesh/install-cni:0.1.0
        imagePullPolicy: Always
        resources: {requests: {cpu: 20m, memory: 80Mi}}
        env: [{name: CNI_BIN_DIR, value: /opt/cni/bin}, {name: CNI_CONF_DIR, value: /etc/cni/net.d}]
"""


def apply(
    stage: Stage, values: Mapping[str, Any] | None = None, *, release: str = "0.1.0", manager: str = "helm"
) -> subprocess.CompletedProcess[str]:
    """Apply the chart of a release on the server's side, without force."""
    chart = stage.folder / f"chart-{release}"
    if not chart.exists():
        shutil.copytree(CHART, chart)
        about = chart / "Chart.yaml"
        about.write_text(re.sub("(?m)^appVersion:.*$", f'appVersion: "{release}"', about.read_text()))
    given = {"cni": {"hub": "registry.example/mesh"} | dict(values or {})}
    done = helm("template", "release", str(chart), f"--namespace={NAMESPACE}", values=given, home=stage.folder)
    assert done.returncode == 0, done.stderr
    admin, results = f"--kubeconfig={stage.cluster.folder / 'admin.kubeconfig'}", []
    rendered = Rendered(done.stdout)
    # Nobody but who applies the chart writes the others, which tests before may have left to other managers.
    others = [each for each in rendered.objects if each["kind"] != "DaemonSet"]
    for objects, force in ((others, ["--force-conflicts"]), ([rendered["DaemonSet"]], [])):
        path = stage.folder / "applied.yaml"
        path.write_text(yaml.safe_dump_all(objects))
        by = ["--server-side", f"--field-manager={manager}", f"--filename={path}", *force]
        command = stage.cluster.kubectl_command(admin, "apply", *by)
        results.append(subprocess.run(command, capture_output=True, text=True, check=False, timeout=60))
    assert results[0].returncode == 0, results[0].stderr
    return results[1]


def applied(stage: Stage, values: Mapping[str, Any] | None = None, **how: str) -> None:
    done = apply(stage, values, **how)
    assert done.returncode == 0, done.stderr


def owned(stage: Stage) -> set[str]:
    """Return the fields that the controller owns, by their last names."""
    return {field[-1].removeprefix("f:") for field in field_ownership.applied_by(stage.daemonset(), CONTROLLER)}


def container(stage: Stage) -> dict[str, Any]:
    found: dict[str, Any] = stage.daemonset()["spec"]["template"]["spec"]["containers"][0]
    return found


def asks(stage: Stage, **cni: Any) -> None:
    """Apply a resource, and wait until the controller has carried it out."""
    wanted = stage.apply({"values": {"cni": cni}})["metadata"]["generation"]
    until(
        lambda: stage.resource().get("status", {}).get("observedGeneration") == wanted,
        SOON,
        "the resource is carried out",
    )


@pytest.mark.parametrize("manager", ["helm", "kustomize-controller", "argocd-controller", "kubectl"])
def test_an_upgrade_has_no_conflict_without_pod_values(empty_stage: Stage, controller: Run, manager: str) -> None:
    stage = empty_stage
    applied(stage, manager=manager)
    with controller():
        asks(stage, logLevel="debug")
        assert owned(stage) <= {"cni.istio.io/resource-values"}
        applied(stage, {"resources": {"requests": None, "limits": {"cpu": "1"}}}, release="0.2.0", manager=manager)
        assert container(stage)["image"].endswith(":0.2.0")
        assert container(stage)["resources"] == {"limits": {"cpu": "1"}}


def test_controller_owns_what_the_resource_sets_and_hands_it_back(empty_stage: Stage, controller: Run) -> None:
    stage = empty_stage
    applied(stage)
    with controller():
        limits = {"limits": {"memory": "200Mi"}, "requests": {"cpu": "50m"}}
        asks(stage, tag="7", resources=limits, cniBinDir="/x/cni/bin", podAnnotations={"of": "resource"})
        assert container(stage)["image"].endswith(":7")
        assert owned(stage) == {"cni.istio.io/resource-values", "image", "memory", "cpu", "value", "path", "of"}
        assert "image" in apply(stage, release="0.2.0").stderr
        asks(stage, cniBinDir="/x/cni/bin")
        assert owned(stage) == {"cni.istio.io/resource-values", "value", "path"}
        assert container(stage)["image"].endswith(":0.1.0")
        assert container(stage)["resources"] == {"requests": {"cpu": "20m", "memory": "80Mi"}}
        asks(stage)
        assert stage.daemonset()["spec"]["template"]["spec"]["volumes"][0]["hostPath"]["path"] == "/opt/cni/bin"
        # They are the chart's again: it takes away what it does not say any more.
        applied(stage, {"resources": {"requests": None}, "cniBinDir": "/y/cni/bin"}, release="0.2.0")
        assert container(stage)["image"].endswith(":0.2.0")
        assert container(stage).get("resources", {}) == {}
        env = {each["name"]: each.get("value") for each in container(stage)["env"]}
        assert env["CNI_BIN_DIR"] == "/y/cni/bin"


def test_field_is_never_missing_while_handed_back(empty_stage: Stage, controller: Run) -> None:
    stage = empty_stage
    applied(stage)
    with controller():
        asks(stage, tag="7", pullPolicy="Never")
        before, done = stage.daemonset()["metadata"]["generation"], len(stage.requests())
        asks(stage)
        assert stage.daemonset()["metadata"]["generation"] == before + 1, "the chart's values have come in one change"
        assert [each for each in stage.writes(done) if "daemonsets" in each] == ["patch daemonsets/istio-cni-node"] * 2
        assert container(stage)["imagePullPolicy"] == "Always"


@pytest.mark.parametrize("with_resource", [True, False])
def test_excess_fields_of_a_former_release_are_handed_back_without_restarting_agents(
    empty_stage: Stage, controller: Run, *, with_resource: bool
) -> None:
    stage = empty_stage
    applied(stage)
    path = stage.folder / "former.yaml"
    path.write_text(ALL)
    by = ("--server-side", "--force-conflicts", f"--field-manager={CONTROLLER}")
    stage.cluster.kubectl("apply", *by, f"--filename={path}")
    assert "conflict" in apply(stage, {"pullPolicy": "Never"}, release="0.2.0").stderr
    before = stage.daemonset()["metadata"]["generation"]
    with controller():
        if with_resource:
            asks(stage, logLevel="debug")
        until(lambda: owned(stage) <= {"cni.istio.io/resource-values"}, SOON, "it is given back")
        assert stage.daemonset()["metadata"]["generation"] == before
        applied(stage, {"pullPolicy": "Never"}, release="0.2.0")
        assert container(stage)["image"].endswith(":0.2.0")


def test_unparking_returns_the_selector_to_the_chart(empty_stage: Stage, controller: Run) -> None:
    stage = empty_stage
    applied(stage)
    with controller(deadline=2):
        asks(stage, logLevel="debug")
        stage.delete()
        until(stage.is_gone, SOON, "it is gone")
        assert "nodeSelector" in owned(stage)
        asks(stage)
        assert owned(stage) <= {"cni.istio.io/resource-values"}
        assert stage.daemonset()["spec"]["template"]["spec"]["nodeSelector"] == {"kubernetes.io/os": "linux"}
        applied(stage, release="0.2.0")


def test_a_client_side_applied_chart_is_upgraded_and_its_values_return(empty_stage: Stage, controller: Run) -> None:
    stage = empty_stage
    stage.install_chart()
    with controller():
        asks(stage, tag="7", resources={"limits": {"cpu": "2"}})
        asks(stage, tag="8")
        assert container(stage)["resources"] == {"requests": {"cpu": "20m", "memory": "80Mi"}}
        asks(stage)
        stage.install_chart({"tag": "9", "resources": {"requests": None}})
        assert container(stage)["image"].endswith(":9")
        assert container(stage).get("resources", {}) == {}
