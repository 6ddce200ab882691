"""What `install-cni explain` says of a pod: the decision, each parameter with its origin, warnings with a way out."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

import pytest

from installer.explain.effective_settings import EffectiveSettings, Layer, layer_settings
from installer.explain.explain import Explanation, explain
from installer.pods.manifest import Found
from installer.pods.pod_specs import PodManifest
from plugin.keys import TRAFFIC
from plugin.pod import Pod
from plugin.redirect import Family

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.pure

APP = {"name": "app", "ports": [{"containerPort": 8080}]}
PROXY = {"name": "istio-proxy"}
NATIVE = PROXY | {"restartPolicy": "Always"}
INIT = {"name": "migrate"}
INJECTED = {"sidecar.istio.io/status": "{}"}
TPROXY = {"sidecar.istio.io/interceptionMode": "TPROXY"}


def explained(
    *containers: dict[str, Any],
    init: tuple[dict[str, Any], ...] = (),
    namespace: str = "shop",
    injected: bool = True,
    addresses: tuple[str, ...] = (),
    says: Mapping[str, str] = {},
    runtime: tuple[str, str] = ("", ""),
) -> Explanation:
    """Explain a pod; annotations are those that begin with traffic.sidecar.istio.io/, unless they are whole.

    `runtime` is its RuntimeClass and the handler that this stands for.
    """
    runtime_class, handler = runtime
    whole = {(key if "/" in key else TRAFFIC + key): text for key, text in says.items()}
    manifest = {
        "metadata": {"name": "web", "namespace": namespace, "annotations": (INJECTED if injected else {}) | whole},
        "spec": {
            "containers": list(containers or (APP, PROXY)),
            "initContainers": list(init),
            "runtimeClassName": runtime_class or None,
        },
        "status": {"podIPs": [{"ip": each} for each in addresses]},
    }
    found = Found(PodManifest(manifest, "Pod"), Pod.from_manifest(manifest), handler)
    return explain(found, (), EffectiveSettings())


def test_each_parameter_has_its_value_and_origin() -> None:
    proxy = PROXY | {"env": [{"name": "INVALID_DROP", "value": "true"}], "securityContext": {"runAsUser": 2000}}
    made = explained(APP, proxy, addresses=("fd00::1",), says={"excludeOutboundPorts": "22"})
    assert (made.decision, made.row) == ("redirect", "redirect")
    values = {each.field: (each.value, each.origin.value) for each in made.parameters}
    assert len(values) == 14
    assert values["include_inbound_ports"] == ((8080,), "containerPorts")
    assert values["exclude_outbound_ports"] == ((22,), "annotation")
    assert values["uid"] == (2000, "securityContext")
    assert values["drop_invalid"] == (True, "env")
    assert values["families"][1] == "addresses"


def test_address_order_is_unknown_if_the_plugin_is_not_chained() -> None:
    """The ADD has no prevResult then: IPv6 may be the pod's first family, and is redirected."""
    manifest = {
        "metadata": {"name": "web", "annotations": INJECTED},
        "spec": {"containers": [APP, PROXY]},
        "status": {"podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}]},
    }
    found = Found(PodManifest(manifest, "Pod"), Pod.from_manifest(manifest))
    effective = layer_settings([Layer("the DaemonSet", {"CHAINED": "false"})])
    families = [explain(found, (), each).redirect.families for each in (EffectiveSettings(), effective)]  # type: ignore[union-attr]
    assert families == [(Family.V4,), (Family.V4, Family.V6)]


def test_disallowed_value_is_an_error_that_names_the_setting() -> None:
    made = explained(says={"includeInboundPorts": "http"})
    assert (made.decision, made.row, made.redirect) == ("error", "invalid", None)
    assert "includeInboundPorts: saw 'http', expected * or ports" in made.reason


def test_a_pod_without_anything_odd_has_no_warning() -> None:
    assert explained().warnings == ()
    assert explained(namespace="istio-system", injected=False).warnings == ()


ROOT = PROXY | {"securityContext": {"runAsUser": 0}}
AS_PROXY = APP | {"securityContext": {"runAsUser": 1337}}
WARNINGS: dict[str, tuple[Explanation, str]] = {
    "early": (explained(init=(INIT,)), "init container migrate runs before the sidecar is up"),
    "early, beside a native sidecar": (explained(APP, init=(INIT, NATIVE)), "init container migrate runs before"),
    "istio-init": (explained(init=({"name": "istio-init"},)), "istio-init needs NET_ADMIN in the pod"),
    "excluded": (
        explained(namespace="istio-system"),
        "its namespace istio-system is excluded: its sidecar gets no traffic",
    ),
    "both ports": (
        explained(
            says={"includeOutboundIPRanges": "", "includeOutboundPorts": "80,443", "excludeOutboundPorts": "443,22"}
        ),
        "outbound port 443 is both included and excluded: it is not redirected",
    ),
    "both inbound": (
        explained(says={"includeInboundPorts": "80", "excludeInboundPorts": "80"}),
        "inbound port 80 is both included and excluded: it is redirected",
    ),
    "both ranges": (
        explained(says={"includeOutboundIPRanges": "10.1.2.3/8", "excludeOutboundIPRanges": "10.0.0.0/8"}),
        "the range 10.0.0.0/8 is both included and excluded: it is not redirected",
    ),
    "both interfaces": (
        explained(says={"excludeInterfaces": "net1", "kubevirtInterfaces": "net1"}),
        "interface net1 is both excluded and rerouted",
    ),
    "misspelt": (
        explained(says={"excludeOutboundIpRanges": "10.0.0.0/8"}),
        f"is {TRAFFIC}excludeOutboundIPRanges meant?",
    ),
    "exclude beside a list": (explained(says={"excludeInboundPorts": "9000"}), "excludeInboundPorts has no effect"),
    "ports beside all": (explained(says={"includeOutboundPorts": "443"}), "includeOutboundPorts has no effect"),
    "the older name": (
        explained(says={"kubevirtInterfaces": "a", "istio.io/reroute-virtual-interfaces": "b"}),
        "kubevirtInterfaces has no effect, as istio.io/reroute-virtual-interfaces wins",
    ),
    "v6 ranges": (explained(says={"excludeOutboundIPRanges": "fd00::/8"}), "the IPv6 ranges fd00::/8 have no effect"),
    "on a pod that passes": (
        explained(injected=False, says={"excludeOutboundPorts": "22"}),
        "excludeOutboundPorts has no effect, as the pod is left alone",
    ),
    "round": (explained(addresses=("10.0.0.1", "fd00::1")), "traffic of fd00::1 bypasses the sidecar"),
    "nothing inbound": (explained(says={"includeInboundPorts": ""}), "nothing inbound is redirected"),
    "root": (explained(APP, ROOT), "istio-proxy runs as root, which counts as uid 1337"),
    "the sidecar's uid": (explained(AS_PROXY, PROXY), "container app runs as the sidecar's uid 1337"),
    "the sidecar's gid": (
        explained(APP | {"securityContext": {"runAsGroup": 1337}}, PROXY),
        "container app runs as the sidecar's gid 1337",
    ),
    **{
        f"RuntimeClass {name} of handler {handler or '(unknown)'}": (
            explained(runtime=(name, handler)),
            f"its runtime class {name} runs it with {stack}, which has a network stack of its own",
        )
        for name, handler, stack in (
            ("gvisor", "", "gVisor"),
            ("runsc-systrap", "", "gVisor"),
            ("secure", "runsc", "gVisor"),
            ("kata", "", "Kata Containers"),
            ("kata-fc", "kata-fc", "Kata Containers"),
            ("katacontainers", "", "Kata Containers"),
            ("team-kata-qemu", "", "Kata Containers"),
            ("vm", "io.containerd.kata.v2", "Kata Containers"),
            ("peerpods", "", "Kata Containers"),
            ("firecracker", "", "Firecracker"),
        )
    },
    "TPROXY": (explained(says=TPROXY), "under TPROXY istio-proxy needs the capability NET_ADMIN"),
}


@pytest.mark.parametrize("case", WARNINGS)
def test_each_surprise_makes_one_warning(case: str) -> None:
    made, said = WARNINGS[case]
    assert [said in warning for warning in made.warnings].count(True) == 1, made.warnings


@pytest.mark.parametrize(
    "made",
    [
        explained(APP, init=(NATIVE, INIT)),
        explained(init=(INIT | {"securityContext": {"runAsUser": 1337}},)),
        explained(init=(INIT | {"securityContext": {"runAsGroup": 1337}},)),
        explained(init=({"name": "istio-validation"},)),
        explained(init=({"name": "enable-core-dump"},)),
        explained(APP, PROXY | {"securityContext": {"runAsUser": 0, "runAsGroup": 1337}}),
        explained(says={"excludeInboundPorts": "15020, 15090"}),
        explained(init=(INIT,), says={"includeOutboundIPRanges": ""}),
        explained(runtime=("nvidia", "")),
        explained(runtime=("kata-like", "crun")),
        explained(APP, PROXY | {"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}, says=TPROXY),
    ],
    ids=[
        "after a native sidecar",
        "as the sidecar's uid",
        "as the sidecar's gid",
        "istio's own",
        "its core dumps",
        "root with a group",
        "excluded anyhow",
        "nothing outbound",
        "another runtime of the node's kernel",
        "a handler that is not what the class is called",
        "with NET_ADMIN",
    ],
)
def test_healthy_pod_has_no_warning(made: Explanation) -> None:
    assert made.decision == "redirect"
    assert made.warnings == ()


def test_the_pods_status_addresses_apply_unless_others_are_given() -> None:
    manifest = {
        "metadata": {"name": "web", "annotations": INJECTED},
        "spec": {"containers": [APP, PROXY]},
        "status": {"podIPs": [{"ip": "fd00::1"}, {"ip": "none"}, {}]},
    }
    found = Found(PodManifest(manifest, "Pod"), Pod.from_manifest(manifest))
    own = explain(found, (), EffectiveSettings())
    given = explain(found, (ipaddress.ip_address("10.0.0.1"),), EffectiveSettings())
    assert own.redirect
    assert given.redirect
    assert (len(own.redirect.families), len(given.redirect.families)) == (2, 1)
