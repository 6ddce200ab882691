"""What `explain` says of what a current injector writes, and of pods that it has left half done."""

from __future__ import annotations

import json
from typing import Any

import pytest

from installer.pods.warnings import INJECTORS
from plugin.keys import TRAFFIC
from tests.explain.test_command import install_cni

pytestmark = pytest.mark.pure

STATUS = {"sidecar.istio.io/status": "{}"}
APP = {"name": "app", "image": "registry.example/app:1", "ports": [{"containerPort": 8080}]}
PROXY = {"name": "istio-proxy", "image": "registry.example/proxyv2:1.30.0", "args": ["proxy", "sidecar"]}
NATIVE = PROXY | {"restartPolicy": "Always"}
VALIDATION = {"name": "istio-validation", "args": ["istio-iptables", "--run-validation", "--skip-rule-apply"]}
WRITTEN = {  # by an injector with pilot.cni.enabled, whatever the pod says
    "sidecar.istio.io/interceptionMode": "REDIRECT",
    f"{TRAFFIC}includeOutboundIPRanges": "*",
    f"{TRAFFIC}includeInboundPorts": "*",
    f"{TRAFFIC}excludeInboundPorts": "15020",
} | STATUS


def pod(*containers: dict[str, Any], init: tuple[dict[str, Any], ...] = (), **metadata: object) -> dict[str, Any]:
    spec = {"containers": [*containers], "initContainers": [*init]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "shop", **metadata},
        "spec": spec,
    }


def cronjob(template: dict[str, Any], *, job: dict[str, Any]) -> dict[str, Any]:
    within = {"metadata": {"annotations": job}, "spec": {"template": template}}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"jobTemplate": within},
    }


def told(manifest: dict[str, Any], *words: str) -> dict[str, Any]:
    done = install_cni("explain", "-f", "-", "-o", "json", *words, given=json.dumps(manifest))
    assert (done.returncode, done.stderr) == (0, "")
    (explained,) = json.loads(done.stdout)
    assert isinstance(explained, dict)
    return explained


@pytest.mark.parametrize("init", [(VALIDATION, NATIVE), (VALIDATION,)], ids=["native", "classic"])
def test_misplaced_cronjob_annotations_are_a_warning_with_their_consequence(
    init: tuple[dict[str, Any], ...],
) -> None:
    containers = (APP,) if NATIVE in init else (APP, PROXY)
    template = {"metadata": {}, "spec": pod(*containers, init=init)["spec"]}
    explained = told(cronjob(template, job=WRITTEN))
    assert (explained["decision"], explained["row"]) == ("pass", "never-injected")
    (warning,) = explained["warnings"]
    assert warning.startswith(
        "istio-proxy and istio-validation are there without the annotation sidecar.istio.io/status: "
        "the pod counts as never injected and is not redirected"
    )
    assert "istio-validation finds no redirect and fails, and the pod does not start" in warning
    assert "The annotation is in spec.jobTemplate.metadata" in warning
    assert "to spec.jobTemplate.spec.template.metadata.annotations" in warning
    right = told(cronjob({**template, "metadata": {"annotations": WRITTEN}}, job=WRITTEN))
    assert (right["decision"], right["warnings"]) == ("redirect", [])


UNINJECTED = {
    "no validation": (pod(APP, PROXY), "istio-proxy is there without the annotation"),
    "what follows": (pod(APP, PROXY), "istio-proxy gets no traffic, if it is Istio's sidecar"),
    "where to": (pod(APP, PROXY), "add the annotation to metadata.annotations"),
    "native": (pod(APP, init=(VALIDATION, NATIVE)), "istio-proxy and istio-validation are there"),
    "a wrong value besides": (
        pod(APP, PROXY, annotations={f"{TRAFFIC}includeInboundPorts": "x"}),
        "istio-proxy is there",
    ),
    "a placeholder": (pod(APP, {"name": "istio-proxy", "image": "auto"}), "istio-proxy is a placeholder"),
}


@pytest.mark.parametrize("case", UNINJECTED)
def test_a_sidecar_without_the_annotation_is_a_warning(case: str) -> None:
    manifest, said = UNINJECTED[case]
    assert [said in each for each in told(manifest)["warnings"]].count(True) == 1


@pytest.mark.parametrize(
    "manifest",
    [
        pod(APP),
        pod(PROXY),
        pod(APP, PROXY | {"args": ["proxy", "router"]}),
        pod(APP, PROXY, labels={"sidecar.istio.io/inject": "false"}),
        pod(PROXY | {"args": ["proxy", "waypoint"]}, labels={"istio.io/dataplane-mode": "none"}),
        pod(APP, NATIVE, init=({"name": "istio-init"},)),
        pod(APP, {"name": "istio-proxy", "image": "x", "env": [{"name": "DISABLE_ENVOY", "value": "true"}]}),
    ],
    ids=["none", "alone", "a gateway", "opted out", "a waypoint", "istio-init does it", "gRPC"],
)
def test_no_warning_for_a_pod_that_the_annotation_would_not_redirect(manifest: dict[str, Any]) -> None:
    explained = told(manifest)
    assert (explained["decision"], explained["warnings"]) == ("pass", [])


def test_mode_none_has_no_warning_about_injector_annotations() -> None:
    mode = {"sidecar.istio.io/interceptionMode": "NONE"}
    everything = dict.fromkeys(INJECTORS, "15020") | WRITTEN | mode
    for init, containers in (((NATIVE,), (APP,)), ((), (APP, PROXY))):
        explained = told(pod(*containers, init=init, annotations=everything))
        assert (explained["row"], explained["warnings"]) == ("mode-none", [])
    own = told(pod(APP, PROXY, annotations=everything | {f"{TRAFFIC}excludeInterfaces": "net1"}))
    assert own["warnings"] == [f"{TRAFFIC}excludeInterfaces has no effect, as the pod is left alone"]


DUAL = PROXY | {"env": [{"name": "ISTIO_DUAL_STACK", "value": "true"}]}


@pytest.mark.parametrize("proxy", [PROXY, DUAL], ids=["single", "dual stack"])
@pytest.mark.parametrize("given", ["10.0.0.1", "10.0.0.1 fd00::1", "fd00::1 10.0.0.1", "fd00::1", ""])
def test_families_that_addresses_decide_are_not_guessed(proxy: dict[str, Any], given: str) -> None:
    """Whatever is written for each order of addresses: where they are not known, it is said that they decide."""
    manifest = pod(APP, proxy, annotations=WRITTEN)
    orders = ("10.0.0.1", "10.0.0.1 fd00::1", "fd00::1 10.0.0.1")
    words = [[f"--pod-ip={each}" for each in order.split()] for order in orders]
    known = [families(told(manifest, *each)) for each in words]
    decides = len({tuple(each[0]) for each in known}) > 1
    value, origin = families(told(manifest, *(f"--pod-ip={each}" for each in given.split())))
    assert (origin == "depends on the pod's addresses") is (decides and not given)
    table = install_cni("explain", "-f", "-", given=json.dumps(manifest)).stdout
    assert ("depends on the pod's addresses (--pod-ip): " in table) is decides
    assert ("(env)" in table) is (proxy is DUAL and not decides)
    if not decides:
        assert value == known[0][0]


def test_address_order_is_irrelevant_if_the_plugin_is_not_chained(monkeypatch: pytest.MonkeyPatch) -> None:
    given = json.dumps(pod(APP, PROXY, annotations=WRITTEN))
    monkeypatch.setenv("CHAINED", "false")
    text = " ".join(install_cni("explain", "-f", "-", given=given).stdout.split())
    assert "IPv4 if it has IPv4 alone; IPv4, IPv6 if IPv6 comes second or IPv6 comes first" in text


def families(explained: dict[str, Any]) -> tuple[list[str], str]:
    (found,) = (each for each in explained["parameters"] if each["name"] == "families")
    return found["value"], found["origin"]


def test_a_setting_that_decides_needs_no_address() -> None:
    for when, value in (("always", ["IPv4", "IPv6"]), ("never", ["IPv4"])):
        assert families(told(pod(APP, DUAL, annotations=WRITTEN), "--ipv6", when)) == (value, "setting")


def test_rules_picture_and_trace_note_that_addresses_decide() -> None:
    given = json.dumps(pod(APP, PROXY, annotations=WRITTEN))
    depends = "depends on the pod's addresses"
    for output in ("rules", "dot", "svg"):
        assert depends in install_cni("explain", "-f", "-", "-o", output, given=given).stdout
        assert depends not in install_cni("explain", "-f", "-", "-o", output, "--pod-ip=10.0.0.1", given=given).stdout
    to = ("trace", "shop/web", "-f", "-", "--to", "[2001:db8::9]:80")
    assert f"{depends}: set them with --pod-ip" in install_cni(*to, given=given).stdout
    assert "IPv6 is not redirected for this pod" in install_cni(*to, "--pod-ip=10.0.0.1", given=given).stdout


@pytest.mark.parametrize(
    "asks",
    [
        {"labels": {"istio.io/dataplane-mode": "ambient"}},
        {"annotations": {"ambient.istio.io/redirection": "enabled"}},
    ],
    ids=["asked for", "done"],
)
def test_ambient_mode_is_a_warning(asks: dict[str, Any]) -> None:
    explained = told(pod(APP, **asks))
    (warning,) = explained["warnings"]
    assert "asks for ambient mode, which this agent does not serve" in warning
    assert told(pod(APP, PROXY, annotations=WRITTEN, labels={"istio.io/dataplane-mode": "ambient"}))["warnings"] == []
