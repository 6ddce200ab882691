"""Which settings `install-cni explain` takes for those in force, and whose it says that they are."""

from __future__ import annotations

from typing import Any

import pytest

from installer.explain.effective_settings import (
    DEFAULT,
    EffectiveSettings,
    Layer,
    apply_control_planes,
    apply_options,
    layer_settings,
)
from plugin.parameters import InboundPorts, Ipv6

pytestmark = pytest.mark.pure

CHART = Layer("DaemonSet kube-system/istio-cni-node", {"DAEMONSET": "kube-system/istio-cni-node", "IPV6": "never"})
CHARTS = layer_settings([CHART])


def plane(name: str = "mesh", created: str = "1", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "istio-system", "uid": name, "creationTimestamp": created}
    return {"metadata": metadata, "spec": spec}


def by_whom(made: EffectiveSettings) -> dict[str, str]:
    return {each.key: each.by for each in made.deciding if each.by != DEFAULT}


def test_defaults_have_no_origin() -> None:
    assert by_whom(EffectiveSettings()) == {}
    assert EffectiveSettings().settings.exclude_namespaces == ("istio-system", "kube-system")


def test_a_later_layer_wins_and_a_default_has_no_origin() -> None:
    made = layer_settings([CHART, Layer("the environment", {"INBOUND_PORTS_DEFAULT": "*", "IPV6": "auto"})])
    assert (made.settings.ipv6, made.settings.inbound_ports_default) == (Ipv6.AUTO, InboundPorts.ALL)
    assert by_whom(made) == {"inboundPortsDefault": "the environment"}


def test_a_value_of_another_release_is_ignored_and_named() -> None:
    made = layer_settings([Layer("DaemonSet a/b", {"REDIRECT_BACKEND": "ebpf"})], ["before"])
    assert made.settings.redirect_backend is None
    assert made.warnings[0] == "before"
    assert made.warnings[1].startswith("DaemonSet a/b: REDIRECT_BACKEND: saw 'ebpf', expected one of auto, nft")


def test_the_charts_value_applies_unless_a_resource_sets_it() -> None:
    assert apply_control_planes(CHARTS, []) == CHARTS
    made = apply_control_planes(CHARTS, [plane(values={"cni": {"inboundPortsDefault": "*"}})])
    assert by_whom(made) == {"inboundPortsDefault": "IstioControlPlane istio-system/mesh", "ipv6": CHART.by}
    assert not made.out


def test_only_the_oldest_resource_applies() -> None:
    older, younger = plane("old", "1", values={"cni": {"ipv6": "always"}}), plane("new", "2", cni={"enabled": False})
    made = apply_control_planes(CHARTS, [younger, older])
    assert (made.settings.ipv6, made.out) == (Ipv6.ALWAYS, "")


def test_an_invalid_resource_or_one_for_another_namespace_is_ignored_and_named() -> None:
    for wrong in (
        {"unvalidatedValues": {"cni": {"ipv6": "sometimes"}}},
        {"values": {"cni": {"ipv6": "always"}}, "cni": {"components": {"cni": {"namespace": "other"}}}},
    ):
        made = apply_control_planes(CHARTS, [plane(**wrong)])
        assert (made.settings, made.by, made.out) == (CHARTS.settings, CHARTS.by, "")
        (warning,) = made.warnings
        assert warning.startswith("IstioControlPlane istio-system/mesh is invalid, spec.")


def test_a_resource_being_deleted_means_no_redirect() -> None:
    going = plane()
    going["metadata"]["deletionTimestamp"] = "2"
    assert apply_control_planes(CHARTS, [going]).out == "IstioControlPlane istio-system/mesh is being deleted"


def test_the_command_line_wins_over_all() -> None:
    made = apply_control_planes(CHARTS, [plane(cni={"enabled": False}, values={"cni": {"ipv6": "always"}})])
    ruled = apply_options(made, {"ipv6": Ipv6.AUTO})
    assert (ruled.settings.ipv6, by_whom(ruled)) == (Ipv6.AUTO, {"ipv6": "--ipv6"})
    assert ruled.out == made.out == "IstioControlPlane istio-system/mesh says enabled: false"
