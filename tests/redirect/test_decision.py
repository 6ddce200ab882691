"""The decision table, one row per line, and the parameters of a redirected pod."""

from __future__ import annotations

import ipaddress
from dataclasses import fields
from typing import Any

import pytest

from plugin.decision import decide
from plugin.keys import REROUTE
from plugin.parameters import Defaults, InboundPorts, Ipv6, Origin, parameters
from plugin.pod import Pod
from plugin.prefilter import Pass, outside_mesh
from plugin.redirect import Family, Mode, Redirect
from plugin.values import EVERYTHING, InvalidValue

pytestmark = pytest.mark.pure

PROXY = {"name": "istio-proxy"}
APP = {"name": "app", "ports": [{"containerPort": 8080}, {"containerPort": 53, "protocol": "UDP"}]}
STATUS = {"sidecar.istio.io/status": "{}"}
INJECT = "sidecar.istio.io/inject"
MODE = "sidecar.istio.io/interceptionMode"
TRAFFIC = "traffic.sidecar.istio.io/"
V4, V6, LINK_LOCAL, V4_LINK_LOCAL = map(ipaddress.ip_address, ("10.0.0.1", "fd00::1", "fe80::1", "169.254.172.2"))


def pod(*containers: Any, init: Any = (), labels: Any = None, **annotations: str) -> Pod:
    metadata = {"name": "web", "namespace": "shop", "annotations": STATUS | annotations, "labels": labels or {}}
    spec = {"containers": list(containers or (APP, PROXY)), "initContainers": list(init)}
    return Pod.from_manifest({"metadata": metadata, "spec": spec})


def proxy(**more: Any) -> dict[str, Any]:
    return PROXY | more


NATIVE = proxy(restartPolicy="Always")
ROWS = {
    "annotation false": (pod(**{INJECT: "false"}), "opted-out"),
    "label false wins over annotation true": (pod(labels={INJECT: "false"}, **{INJECT: "true"}), "opted-out"),
    "label true wins over annotation false": (pod(labels={INJECT: "true"}, **{INJECT: "false"}), "redirect"),
    "istio-init": (pod(init=[{"name": "istio-init"}]), "istio-init"),
    "istio-init before no proxy": (pod(APP, APP, init=[{"name": "istio-init"}]), "istio-init"),
    "no proxy": (pod(APP, {"name": "other"}), "no-proxy"),
    "proxy alone": (pod(PROXY), "proxy-alone"),
    "native sidecar counts": (pod(APP, init=[NATIVE]), "redirect"),
    "no Envoy": (pod(APP, proxy(env=[{"name": "DISABLE_ENVOY", "value": "true"}])), "no-sidecar"),
    "a router": (pod(APP, proxy(args=["proxy", "router"])), "no-sidecar"),
    "a sidecar": (pod(APP, proxy(args=["proxy", "sidecar"])), "redirect"),
    "mode NONE": (pod(**{MODE: "NONE"}), "mode-none"),
    "NONE before what does not validate": (pod(**{MODE: "NONE", TRAFFIC + "excludeInboundPorts": "x"}), "mode-none"),
    "meshed": (pod(), "redirect"),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_first_row_that_applies_decides(row: str) -> None:
    given, expected = ROWS[row]
    verdict = decide(given, (V4,), Defaults())
    assert (verdict.row if isinstance(verdict, Pass) else "redirect") == expected


@pytest.mark.parametrize(
    ("namespace", "name", "annotations", "row"),
    [
        ("", "web", None, "not-kubernetes"),
        ("shop", "", STATUS, "not-kubernetes"),
        ("istio-system", "web", STATUS, "excluded"),
        ("shop", "web", {}, "never-injected"),
        ("shop", "web", STATUS, None),
        ("shop", "web", None, None),
    ],
)
def test_decisions_from_the_runtimes_data_alone(namespace: str, name: str, annotations: Any, row: str | None) -> None:
    verdict = outside_mesh(namespace, name, ("istio-system",), annotations)
    assert (verdict.row if verdict else None) == row


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (MODE, "redirect"),
        (TRAFFIC + "includeInboundPorts", "80,*"),
        (TRAFFIC + "excludeInboundPorts", "0"),
        (TRAFFIC + "excludeInboundPorts", "65536"),
        (TRAFFIC + "excludeInboundPorts", "８０"),  # noqa: RUF001 - digits of another script
        (TRAFFIC + "excludeOutboundPorts", "80\n81"),
        (TRAFFIC + "includeOutboundIPRanges", "10.0.0.0/33"),
        (TRAFFIC + "excludeOutboundIPRanges", "*"),
        (TRAFFIC + "excludeInterfaces", 'eth0" accept'),
        (TRAFFIC + "kubevirtInterfaces", "net1 net2"),
        (REROUTE, "1net"),
    ],
)
def test_invalid_values_are_named(key: str, value: str) -> None:
    with pytest.raises(InvalidValue) as error:
        decide(pod(**{key: value}), (V4,), Defaults())
    assert key in str(error.value)
    assert "expected" in str(error.value)


def test_the_ports_that_the_pod_declares_are_the_default() -> None:
    assert _redirect(pod()).include_inbound_ports == (8080,)


def test_all_inbound_ports_are_redirected_if_the_setting_says_so() -> None:
    verdict = decide(pod(), (V4,), Defaults(inbound_ports=InboundPorts.ALL))
    assert isinstance(verdict, Redirect)
    assert verdict.include_inbound_ports is EVERYTHING


def test_proxy_env_and_interception_mode_are_honoured() -> None:
    env = [{"name": "ISTIO_META_DNS_CAPTURE", "value": "true"}, {"name": "INVALID_DROP", "value": "1"}]
    redirect = _redirect(pod(APP, proxy(env=env), **{MODE: "TPROXY", TRAFFIC + "excludeInterfaces": "net1, net2"}))
    assert (redirect.mode, redirect.dns_capture, redirect.drop_invalid) == (Mode.TPROXY, True, True)
    assert redirect.exclude_interfaces == ("net1", "net2")


def test_the_newer_name_of_the_interfaces_of_virtual_machines_wins() -> None:
    old, both = {TRAFFIC + "kubevirtInterfaces": "old"}, {TRAFFIC + "kubevirtInterfaces": "old", REROUTE: "new"}
    assert [_redirect(pod(**given)).reroute_interfaces for given in (old, both)] == [("old",), ("new",)]


def test_each_parameter_says_where_its_value_came_from() -> None:
    env = [{"name": "ISTIO_META_DNS_CAPTURE", "value": "true"}]
    sidecar = proxy(env=env, securityContext={"runAsUser": 2000})
    given = pod(APP, sidecar, **{TRAFFIC + "excludeOutboundPorts": "22"})
    assert given.proxy
    origins = {each.field: each.origin for each in parameters(given, given.proxy, (V6,), Defaults())}
    assert set(origins) == {field.name for field in fields(Redirect)}
    assert {name: origin for name, origin in origins.items() if origin is not Origin.DEFAULT} == {
        "families": Origin.ADDRESSES,
        "uid": Origin.SECURITY_CONTEXT,
        "include_inbound_ports": Origin.CONTAINER_PORTS,
        "exclude_outbound_ports": Origin.ANNOTATION,
        "dns_capture": Origin.ENV,
    }


def test_an_address_that_bypasses_the_sidecar_is_reported() -> None:
    assert Redirect().bypassing((V4, V6, LINK_LOCAL)) == (V6,)
    assert Redirect(families=(Family.V4, Family.V6)).bypassing((V4, V6)) == ()


def test_an_empty_annotation_means_none() -> None:
    redirect = _redirect(pod(**{TRAFFIC + "includeInboundPorts": "", TRAFFIC + "excludeOutboundPorts": " "}))
    assert (redirect.include_inbound_ports, redirect.exclude_outbound_ports) == ((), ())


def test_ranges_are_canonical_and_collapse() -> None:
    redirect = _redirect(pod(**{TRAFFIC + "includeOutboundIPRanges": "10.1.2.3/8, 10.0.0.0/8,fd00::1"}))
    assert [str(cidr) for cidr in redirect.include_outbound] == ["10.0.0.0/8", "fd00::1/128"]  # type: ignore[union-attr]


@pytest.mark.parametrize(("user", "uid"), [(None, 1337), (0, 1337), (2000, 2000)])
def test_the_proxys_uid_is_read_from_the_pod(user: int | None, uid: int) -> None:
    security = {} if user is None else {"securityContext": {"runAsUser": user}}
    assert _redirect(pod(APP, proxy(**security))).uid == uid


@pytest.mark.parametrize(
    ("addresses", "dual", "setting", "families"),
    [
        ((V4,), "true", "auto", (Family.V4, Family.V6)),  # an IPv6 address may come after the ADD
        ((), "false", "auto", (Family.V4,)),
        (None, "false", "auto", (Family.V4, Family.V6)),
        (None, "false", "never", (Family.V4,)),
        ((V4, V6), "false", "auto", (Family.V4,)),
        ((V4, V6), "true", "auto", (Family.V4, Family.V6)),
        ((V4, LINK_LOCAL), "false", "auto", (Family.V4,)),
        ((LINK_LOCAL, V4), "false", "auto", (Family.V4,)),
        ((LINK_LOCAL, V6), "false", "auto", (Family.V4, Family.V6)),
        ((V4_LINK_LOCAL, V6), "false", "auto", (Family.V4, Family.V6)),
        ((V6, V4), "false", "auto", (Family.V4, Family.V6)),
        ((V6, V4), "true", "never", (Family.V4,)),
        ((V4,), "false", "always", (Family.V4, Family.V6)),
    ],
)
def test_ipv6_is_redirected_if_the_proxy_listens_on_it(addresses: Any, dual: str, setting: str, families: Any) -> None:
    defaults = Defaults(ipv6=Ipv6(setting))
    given = pod(APP, proxy(env=[{"name": "ISTIO_DUAL_STACK", "value": dual}]))
    verdict = decide(given, addresses, defaults)
    assert isinstance(verdict, Redirect)
    assert verdict.families == families


def _redirect(given: Pod) -> Redirect:
    verdict = decide(given, (V4,), Defaults())
    assert isinstance(verdict, Redirect)
    return verdict


@pytest.mark.parametrize(
    ("key", "token", "most"),
    [(TRAFFIC + "kubevirtInterfaces", "net{}", 16), (TRAFFIC + "includeOutboundPorts", "{}", 1024)],
)
def test_a_list_is_bounded(key: str, token: str, most: int) -> None:  # F32
    tokens = [token.format(number + 1) for number in range(most + 1)]
    _redirect(pod(**{key: ",".join(tokens[:most])}))
    with pytest.raises(InvalidValue, match=f"expected at most {most} "):
        _redirect(pod(**{key: ",".join(tokens)}))


def test_declared_ports_are_bounded() -> None:  # F32
    app = {"name": "app", "ports": [{"containerPort": number + 1} for number in range(1025)]}
    with pytest.raises(InvalidValue, match=r"containerPorts: saw '1025', expected at most 1024; .*InboundPorts to \*"):
        _redirect(pod(app, proxy()))
    assert _redirect(pod(app, proxy(), **{TRAFFIC + "includeInboundPorts": "*"})).include_inbound_ports is EVERYTHING


GOING = {"deletionTimestamp": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("metadata", "status", "runs"),
    [
        ({}, {"phase": "Running"}, True),
        (GOING, {"phase": "Running"}, False),
        (GOING, {"phase": "Running", "containerStatuses": [{"state": {"terminated": {}}}]}, False),
        (GOING, {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}, True),
        ({}, {"phase": "Succeeded"}, False),
        ({}, {"phase": "Pending"}, False),
        ({}, {"phase": "Pending", "initContainerStatuses": [{"state": {"running": {}}}]}, True),
    ],
)
def test_a_pod_counts_as_running_from_its_first_container_to_the_end_of_the_last(
    metadata: dict[str, str], status: dict[str, Any], *, runs: bool
) -> None:
    pod = Pod.from_manifest({"metadata": {"name": "web"} | metadata, "spec": {}, "status": status})
    assert pod.running is runs
    assert pod.terminating is bool(metadata)
