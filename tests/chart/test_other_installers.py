"""What the page "With a current Istio" tells users of the Sail operator, and of istioctl as far as nothing has to run.

The operator is no module that the tests could build it from. They do its part with helm.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from installer.config.istio_chart import translate
from installer.version import RELEASE
from tests.chart.helm import helm
from tests.chart.istio_chart import IstiosChart
from tests.docs.istio_page import CHARTS, Shell, commands, without_settings
from tests.image.build import HUB
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver

NAMESPACE = "istio-cni"  # of the IstioCNI
FIELDS = {"spec.nodeName": "worker-1", "metadata.name": "istio-cni-node-x7k2p", "metadata.namespace": NAMESPACE,
          "limits.memory": "1073741824", "limits.cpu": "2"}  # fmt: skip
GROUP, FINALIZER = "sailoperator.io", "sailoperator.io/sail-operator"
SPECS = {
    "Istio": {"version": "v1.32.0", "namespace": "istio-system"},
    "IstioCNI": {"version": "v1.32.0", "namespace": NAMESPACE, "values": {"cni": {"logging": {"level": "debug"}}}},
}


def definition(kind: str) -> dict[str, Any]:
    """Make the definition of a kind of the operator's; its own also says what values there are."""
    names = {"kind": kind, "plural": f"{kind.lower()}s", "singular": kind.lower()}
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names['plural']}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Cluster", "names": names, "versions": [version]},
    }


class Operator:
    """Does for the IstioCNI what the operator does: a release of Istio's chart, which the resource owns."""

    def __init__(self, cluster: Cluster, home: Path) -> None:
        self._cluster, self._home = cluster, home
        self._done = ("", 0)  # uid and generation of the resource that was seen to

    def resource(self) -> dict[str, Any]:
        """Read the resource."""
        told = self._cluster.kubectl("get", "istiocni", "default", "--output=json", "--ignore-not-found")
        found: dict[str, Any] = json.loads(told or "{}")
        return found

    def has_nothing_to_do(self) -> bool:
        """See to the resource as it is now, or find that all is done."""
        resource = self.resource()
        if not resource:
            return True
        metadata = resource["metadata"]
        if metadata.get("deletionTimestamp"):
            self._helm("uninstall", "istio-cni")
            self._patch("istiocni/default", {"finalizers": None})
            return False
        if self._done == (metadata["uid"], metadata["generation"]):
            return True
        self._patch("istiocni/default", {"finalizers": [FINALIZER]})
        chart = str(CHARTS["istio/cni"])
        self._helm("upgrade", "--install", "istio-cni", chart, values=resource["spec"].get("values"))
        owner = {"apiVersion": f"{GROUP}/v1", "kind": "IstioCNI", "name": "default", "uid": metadata["uid"]}
        self._patch("daemonset/istio-cni-node", {"ownerReferences": [owner]}, f"--namespace={NAMESPACE}")
        self._done = (metadata["uid"], metadata["generation"])
        return False

    def _patch(self, what: str, metadata: dict[str, Any], *where: str) -> None:
        told = json.dumps({"metadata": metadata})
        self._cluster.kubectl("patch", what, *where, "--type=merge", f"--patch={told}")

    def _helm(self, *arguments: str, values: dict[str, Any] | None = None) -> None:
        own = (f"--kubeconfig={self._cluster.folder / 'admin.kubeconfig'}", f"--namespace={NAMESPACE}")
        done = helm(*arguments, *own, values=values, home=self._home)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def definitions(cluster: Cluster) -> Iterator[None]:
    """The operator's kinds, and the namespace of its IstioCNI."""
    for kind in SPECS:
        cluster.kubectl("apply", "--filename=-", text=json.dumps(definition(kind)))
        cluster.kubectl("wait", "--for=condition=Established", f"crd/{kind.lower()}s.{GROUP}", "--timeout=60s")
    cluster.kubectl("create", "namespace", NAMESPACE)
    yield
    for kind in SPECS:
        cluster.kubectl("delete", "crd", f"{kind.lower()}s.{GROUP}", "--wait=false")
    cluster.forget_namespace(NAMESPACE)


@pytest.fixture
def shell(cluster: Cluster, definitions: None, tmp_path: Path) -> Iterator[Shell]:
    """A shell at the API server, which has the operator's resources and no agent yet."""
    where = ("--all-namespaces", "--field-selector=metadata.name=istio-cni-node")  # those that other tests have left
    cluster.kubectl("delete", "daemonsets", *where)
    for kind, spec in SPECS.items():
        made = {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": {"name": "default"}, "spec": spec}
        until(partial(_is_served, cluster, kind), 60, f"the API server serves {kind}")
        cluster.kubectl("create", "--filename=-", text=json.dumps(made))
    hooks = {"helm uninstall": "helm uninstall --no-hooks"}  # nobody runs Jobs here
    made_for_it = Shell(tmp_path, cluster.folder / "admin.kubeconfig", replaced=hooks)
    yield made_for_it
    for kind in SPECS:
        cluster.kubectl("patch", kind, "default", "--type=merge", '--patch={"metadata":{"finalizers":null}}')
        cluster.kubectl("delete", kind, "default")
    made_for_it(f"helm uninstall istio-cni --namespace {NAMESPACE} --ignore-not-found")


def _is_served(cluster: Cluster, kind: str) -> bool:
    told = cluster.kubectl("api-resources", f"--api-group={GROUP}", "--output=name", "--cached=false")
    return f"{kind.lower()}s.{GROUP}" in told.split()


def daemonset(cluster: Cluster) -> dict[str, Any]:
    """Read the DaemonSet of the agents."""
    told = cluster.kubectl("get", "daemonset/istio-cni-node", f"--namespace={NAMESPACE}", "--output=json")
    found: dict[str, Any] = json.loads(told)
    return found


def image(cluster: Cluster) -> str:
    """Say which image the agents have."""
    (container,) = daemonset(cluster)["spec"]["template"]["spec"]["containers"]
    return str(container["image"])


def injects_validation(rendered: str) -> bool:
    """Whether istiod injects istio-validation in place of istio-init, by the manifests of its chart."""
    (found,) = [
        each
        for each in yaml.load_all(rendered, yaml.CSafeLoader)
        if each and (each["kind"], each["metadata"]["name"]) == ("ConfigMap", "istio-sidecar-injector")
    ]
    return json.loads(found["data"]["values"])["pilot"]["cni"]["enabled"] is True


def test_sails_agent_is_replaced_and_brought_back(cluster: Cluster, shell: Shell) -> None:
    operator = Operator(cluster, shell.folder)
    until(operator.has_nothing_to_do, 60, "the operator has installed Istio's agent")
    istios = image(cluster)

    def run(command: str) -> str:
        """Run a command beside the operator."""
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(shell, command)
            until(lambda: operator.has_nothing_to_do() and running.done(), 120, command)
            return running.result()

    printed = run("install-cni takeover --check -o json | jq -r '.commands[]'")
    *replace, wait = commands("From Istio's own CNI", "kubectl delete istiocni")
    assert wait == "install-cni status --wait", "all but this, as no agent runs here"
    assert [*map(without_settings, printed.splitlines())] == [*map(without_settings, replace)]
    for command in replace:
        run(command)
    assert image(cluster) == f"{HUB}/install-cni:{RELEASE}"
    assert "ownerReferences" not in daemonset(cluster)["metadata"]
    assert operator.resource() == {}

    for command in commands("Back again", "kubectl apply"):
        run(command)
    until(operator.has_nothing_to_do, 60, "the operator has installed Istio's agent again")
    assert image(cluster) == istios
    assert daemonset(cluster)["metadata"]["ownerReferences"][0]["kind"] == "IstioCNI"
    assert operator.resource()["spec"] == SPECS["IstioCNI"]


def test_sails_release_of_istios_chart_gets_this_image(cluster: Cluster, shell: Shell, tmp_path: Path) -> None:
    operator = Operator(cluster, shell.folder)
    for command in commands("Istio's own chart with this image", "kubectl patch istiocni"):
        shell(command)
    until(operator.has_nothing_to_do, 60, "the operator has installed the agent")
    assert image(cluster) == f"{HUB}/install-cni:{RELEASE}"
    chart = IstiosChart(tmp_path, operator.resource()["spec"]["values"], f"--namespace={NAMESPACE}")
    environment = chart.environment(FIELDS)
    found = translate(chart.container["args"] or [], environment, {path for path, _, _ in chart.mounts()})
    assert (found.settings.log_level.value, found.settings.daemonset) == ("debug", (NAMESPACE, "istio-cni-node"))


def test_sails_istiod_leaves_the_redirect_to_a_plugin(cluster: Cluster, shell: Shell) -> None:
    for command in commands("Set up", "kubectl patch istio default"):
        shell(command)
    values = json.loads(cluster.kubectl("get", "istio", "default", "--output=json"))["spec"]["values"]
    done = helm("template", "istiod", str(CHARTS["istio/istiod"]), values=values, home=shell.folder)
    assert done.returncode == 0, done.stderr
    assert injects_validation(done.stdout)


def test_istioctls_istiod_leaves_the_redirect_to_a_plugin(tmp_path: Path) -> None:
    rendering = Shell(tmp_path, tmp_path / "none", replaced={"istioctl install": "istioctl manifest generate"})
    spec = {"profile": "empty", "components": {"pilot": {"enabled": True}}}
    operator = {"apiVersion": "install.istio.io/v1alpha1", "kind": "IstioOperator", "spec": spec}
    (tmp_path / "FILE").write_text(json.dumps(operator))
    assert not injects_validation(rendering("istioctl install --filename FILE --set values.pilot.cni.enabled=true"))
    (install,) = commands("Set up", "istioctl install")
    assert injects_validation(rendering(install))
    _, without_cni, *_ = commands("From Istio's own CNI", "istioctl install")
    assert injects_validation(rendering(f"{without_cni} --set values.cni.logging.level=debug"))
