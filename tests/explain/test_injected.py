"""Pods as the injectors leave them: each is decided as it should be, with the parameters that were meant."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from installer.explain.effective_settings import EffectiveSettings
from installer.explain.explain import explain
from installer.pods.manifest import Found, read
from plugin.redirect import Family, Mode
from plugin.values import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from installer.explain.explain import Explanation

pytestmark = pytest.mark.pure

FOLDER = Path(__file__).parents[1] / "manifests"


class Expected(NamedTuple):
    """What is to be made of a pod: the row that decides, the parameters that matter, the beginning of each warning."""

    row: str
    parameters: Mapping[str, Any] = MappingProxyType({})
    warnings: tuple[str, ...] = ()


EXPECTED = {
    "automatic.yaml": {
        "bookinfo/reviews-7d6f5c9b8-x2x4z": Expected(
            "redirect",
            {
                "include_inbound_ports": EVERYTHING,
                "exclude_inbound_ports": (15020, 15021, 15090),
                "include_outbound": EVERYTHING,
                "exclude_outbound": (),
                "exclude_outbound_ports": (15020,),
                "families": (Family.V4,),
                "uid": 1337,
                "mode": Mode.REDIRECT,
            },
            ("traffic of fd00:244:1::7 bypasses the sidecar",),
        )
    },
    "native-sidecar.yaml": {
        "bookinfo/ratings": Expected(
            "redirect", {"exclude_outbound_ports": (3306, 6379), "include_inbound_ports": EVERYTHING}
        )
    },
    "kube-inject-2019.yaml": {
        "default/httpbin": Expected(
            "redirect",
            {"include_inbound_ports": (80,), "exclude_inbound_ports": (15020,), "reroute_interfaces": ()},
        )
    },
    "configmap-2019.yaml": {
        "legacy/sleep": Expected("redirect", {"include_inbound_ports": (8080, 8443), "dns_capture": False})
    },
    "job.yaml": {
        "batch/report": Expected("redirect", {"include_inbound_ports": ()}, ("nothing inbound is redirected",)),
        "batch/nightly": Expected("opted-out"),
    },
    "statefulset.yaml": {
        "shop/db": Expected(
            "redirect",
            {"include_inbound_ports": (5432, 9104, 9187), "uid": 2102, "gid": 2102, "exclude_interfaces": ("net1",)},
            (
                "traffic.sidecar.istio.io/excludeInboundPorts has no effect",
                "inbound port 9104 is both included and excluded",
            ),
        )
    },
    "tproxy.yaml": {
        "shop/edge": Expected(
            "redirect",
            {"mode": Mode.TPROXY, "dns_capture": True, "drop_invalid": True, "uid": 1337, "gid": 1337},
        )
    },
    "istio-init.yaml": {
        "shop/old": Expected("istio-init", {}, ("istio-init needs NET_ADMIN in the pod",)),
        "shop/ingress": Expected("no-sidecar"),
    },
    "core-dump-2019.yaml": {
        "shop/details": Expected(
            "redirect", {"include_inbound_ports": (9080,), "exclude_outbound_ports": (3306, 27017), "uid": 1337}
        )
    },
    "tproxy-2019.yaml": {
        "shop/quotes": Expected("redirect", {"mode": Mode.TPROXY, "include_inbound_ports": (8080,), "gid": 1337})
    },
    "istiod-tproxy.yaml": {
        "shop/geo": Expected(
            "redirect", {"mode": Mode.TPROXY, "include_inbound_ports": EVERYTHING, "uid": 1337, "gid": 1337}
        )
    },
    "custom-uid.yaml": {"shop/checkout": Expected("redirect", {"uid": 1000730001, "gid": 1000730001})},
    "pod-group-2019.yaml": {
        "shop/billing": Expected(
            "redirect", {"uid": 1337, "gid": 3000}, ("container billing runs as the sidecar's gid 3000",)
        )
    },
    "statefulset-lists.yaml": {
        "shop/db": Expected(
            "redirect",
            {
                "include_inbound_ports": (5432, 9187),
                "include_outbound": (ip_network("10.96.0.0/12"), ip_network("10.244.0.0/16")),
                "exclude_outbound": (ip_network("10.244.200.0/24"),),
                "include_outbound_ports": (443,),
                "exclude_outbound_ports": (7000,),
            },
            ("traffic.sidecar.istio.io/excludeInboundPorts has no effect",),
        )
    },
    "job-native-sidecar.yaml": {
        "shop/import": Expected("redirect", {"include_inbound_ports": EVERYTHING, "include_outbound": EVERYTHING})
    },
    "cronjob.yaml": {
        "shop/report": Expected(
            "redirect", {"include_inbound_ports": (), "include_outbound": ()}, ("nothing inbound is redirected",)
        )
    },
    "dns-capture.yaml": {"shop/search": Expected("redirect", {"dns_capture": True, "drop_invalid": False})},
    "dual-stack.yaml": {
        "shop/edge-0": Expected("redirect", {"families": (Family.V4, Family.V6), "drop_invalid": True})
    },
    "kubevirt.yaml": {
        "shop/vms": Expected("redirect", {"reroute_interfaces": ("k6t-eth0",), "exclude_interfaces": ("net1", "net2")})
    },
    "host-network.yaml": {"shop/tap": Expected("redirect", {}, ("the pod is on its node's network",))},
    "gateway.yaml": {"shop/gateway": Expected("proxy-alone")},
    "grpc-agent.yaml": {"shop/rates": Expected("no-sidecar")},
    "mode-none.yaml": {"shop/legacy": Expected("mode-none")},
    # What follows is what the injector of Istio 1.32's development version writes with pilot.cni.enabled.
    "mode-none-native.yaml": {"shop/legacy": Expected("mode-none")},
    "gateway-current.yaml": {"shop/gateway": Expected("proxy-alone")},
    "grpc-agent-current.yaml": {"shop/rates": Expected("no-sidecar")},
    "cronjob-kube-inject.yaml": {
        "shop/report": Expected("never-injected", {}, ("istio-proxy and istio-validation are there without",))
    },
    "interfaces.yaml": {
        "shop/vms": Expected(
            "redirect",
            {
                "reroute_interfaces": ("k6t-eth0", "docker0"),
                "exclude_interfaces": ("net1",),
                "exclude_inbound_ports": (9104, 15020),
                "exclude_outbound": (ip_network("169.254.169.254/32"),),
            },
        )
    },
    "classic-dual-stack.yaml": {"shop/edge": Expected("redirect", {"dns_capture": True, "uid": 1337})},
    "proxy-customized.yaml": {"shop/cart": Expected("redirect", {"include_inbound_ports": EVERYTHING})},
    "tproxy-native.yaml": {
        "shop/tap": Expected(
            "redirect", {"mode": Mode.TPROXY, "include_inbound_ports": (8080, 8443), "uid": 1337, "gid": 1337}
        )
    },
    "pod-native.yaml": {"shop/probe": Expected("redirect", {"include_inbound_ports": EVERYTHING})},
    "kinds-native.yaml": {
        name: Expected("redirect", {"include_inbound_ports": EVERYTHING})
        for name in ("shop/import", "shop/old", "shop/dc")
    },
    "list.json": {
        "shop/cart-6d5c7f9b8d-x2lkq": Expected("redirect", {"families": (Family.V4,), "uid": 1337, "gid": 1337}),
        "shop/plain": Expected("never-injected"),
        "shop/opted-out": Expected("opted-out"),
        "istio-system/telemetry-0": Expected(
            "excluded", {}, ("the pod was injected, but its namespace istio-system is excluded", "traffic.sidecar")
        ),
    },
}


def explained(file: str) -> dict[str, Explanation]:
    found = [
        each for each in read((FOLDER / file).read_bytes(), is_json=file.endswith(".json")) if isinstance(each, Found)
    ]
    made = [explain(each, (), EffectiveSettings()) for each in found]
    return {f"{each.namespace}/{each.name}": each for each in made}


@pytest.mark.parametrize("file", sorted(path.name for path in FOLDER.iterdir()))
def test_injected_pod_is_treated_as_istio_intends(file: str) -> None:
    made = explained(file)
    assert {name: each.row for name, each in made.items()} == {n: each.row for n, each in EXPECTED[file].items()}
    for name, expected in EXPECTED[file].items():
        values = {each.field: each.value for each in made[name].parameters}
        assert {field: values[field] for field in expected.parameters} == expected.parameters
        assert len(made[name].warnings) == len(expected.warnings), made[name].warnings
        for warning, begins in zip(made[name].warnings, expected.warnings, strict=True):
            assert warning.startswith(begins)
