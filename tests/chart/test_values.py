"""Chart values, their schema, the agents' environment and declared settings: one set of names, types and defaults."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from installer.config.kinds import SettingError, encode
from installer.config.settings import declarations, parse_settings
from tests.chart.helm import CHART, PLATFORMS, helm, read_schema
from tests.chart.references import WRONG_HUBS, WRONG_TAGS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chart.conftest import Refuse, Render

pytestmark = pytest.mark.apiserver

OF_2019 = {  # the install guide's table, word for word but for the namespace that we add
    "hub": "",
    "tag": "",
    "pullPolicy": "Always",
    "logLevel": "warn",
    "excludeNamespaces": ["istio-system", "kube-system"],
    "cniBinDir": "/opt/cni/bin",
    "cniConfDir": "/etc/cni/net.d",
    "cniConfFileName": "",
    "psp_cluster_role": "",
    "podAnnotations": {},
}
OF_CNI: dict[str, Any] = {
    key: each
    for key, each in read_schema()["properties"]["cni"]["properties"].items()
    if "$ref" not in each  # Istio's
}
AGENTS = {each.key: each for each in declarations() if each.key in OF_CNI}


def given_by_the_chart() -> dict[str, Any]:
    """What values.yaml gives, and what platforms/default.yaml gives where it leaves something to the platform."""
    files = [CHART / "platforms" / "default.yaml", CHART / "values.yaml"]
    default, own = [yaml.safe_load(file.read_text())["cni"] for file in files]
    assert not default.keys() & own.keys(), "what values.yaml says, no platform can say otherwise"
    found: dict[str, Any] = default | own
    return found


def test_every_option_of_2019_exists_with_its_default() -> None:
    chart = given_by_the_chart()
    assert {name: chart[name] for name in OF_2019} == OF_2019


def test_the_schema_has_every_value_with_its_default() -> None:
    assert {name: each["default"] for name, each in OF_CNI.items()} == given_by_the_chart()
    assert all(each["description"].endswith(".") for each in OF_CNI.values())


def test_agent_gets_exactly_its_settings(render: Render) -> None:
    rendered = render()
    told = rendered.settings | {each["name"]: "" for each in rendered.container["env"]}
    in_the_image = {"PLUGIN_FILE", "PODS_FROM", "KUBECONFIG"}
    assert set(told) == {each.variable for each in declarations()} - in_the_image
    assert "envFrom" not in rendered.container


CHANGED: dict[str, Any] = {
    "chained": False,
    "cniBinDir": "/x/bin",
    "cniConfDir": "/x/net.d",
    "cniConfFileName": "10-x.conflist",
    "istioOwnedCNIConfig": True,
    "istioOwnedCNIConfigFileName": "01-x.conflist",
    "agentSocket": "/run/x/y.sock",
    "excludeNamespaces": ["a", "foo_ns"],
    "redirectBackend": "iptables-legacy",
    "inboundPortsDefault": "*",
    "ipv6": "never",
    "repairMode": "delete",
    "logLevel": "debug",
    "netnsDir": "/x/netns",
    "healthAddress": "[::]:1234",
}


def test_each_value_reaches_its_setting(render: Render) -> None:
    assert set(CHANGED) == set(AGENTS)
    told = render({"cni": CHANGED}).settings
    for name, declared in AGENTS.items():
        text = told[declared.variable]
        assert text == encode(CHANGED[name])
        assert declared.kind.parse_text(text) != declared.kind.parse_text(declared.default_text), (
            f"{name} is not changed, so this shows nothing"
        )


def test_agent_parses_the_charts_environment(render: Render) -> None:
    names = {each.variable: each.name for each in declarations()}
    for cni in ({}, CHANGED, {"healthAddress": "", "excludeNamespaces": []}):
        parse_settings({names[variable]: text for variable, text in render({"cni": cni}).settings.items()})


BY_PATTERN = sorted(name for name in AGENTS if "pattern" in OF_CNI[name])


@pytest.mark.parametrize("name", BY_PATTERN)
@given(data=st.data())
def test_agent_parses_every_value_that_the_schema_allows(name: str, data: st.DataObject) -> None:
    pattern = OF_CNI[name]["pattern"].removeprefix("^").removesuffix("$")
    longest = OF_CNI[name].get("maxLength", 4095)
    text = data.draw(st.from_regex(pattern, fullmatch=True).filter(lambda text: len(text) <= longest))
    AGENTS[name].kind.parse_text(text)


REFUSED_BY_THE_AGENT: dict[str, list[Any]] = {
    "chained": ["no"],
    "cniBinDir": ["bin", ""],
    "cniConfDir": ["a/b", "", "/a\0"],
    "cniConfFileName": ["x", "a/x.conf", ".conf", ".x.conf"],
    "istioOwnedCNIConfig": ["no"],
    "istioOwnedCNIConfigFileName": ["x.conf", "a/x.conflist", ".conflist", ".x.conflist"],
    "agentSocket": ["a.sock", "/run/a/", '/run/a/"', "/run/a/" + "b" * 94],
    "excludeNamespaces": [["A"], ["-a"], ["a", "a" * 64]],
    "healthAddress": ["h:65536", "localhost", "::1:15014", "a:b", "[::1]", "a_b:1"],
    "logLevel": ["loud", ""],
    "netnsDir": ["netns", ""],
    "redirectBackend": ["ebpf"],
    "inboundPortsDefault": ["80"],
    "ipv6": ["true"],
    "repairMode": ["true", "Redirect"],
}


ADDRESSES = [
    "::", "::1", "1::", "1::8", "fd00::1:2", "2001:db8::7", "fe80::1", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::",
    "::2:3:4:5:6:7:8", "1::3:4:5:6:7:8", "ABCD::ef", "0:0:0:0:0:0:0:0", "::::", ":::", ":", "1", "1:", ":1", "1:2",
    "1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8", "1::2:3:4:5:6:7:8",
    "12345::", "g::", "::1:", ":1::", "1:::2", "::1%", "fe80::1%eth0", "::/0", "1.2.3.4", "::1.2.3", "[::1]",
    "1:2:3:4:5:6:7:8.", "-1::", "0x1::", "::1::",
]  # fmt: skip
TAKEN = [
    "a:1", "localhost:65535", "a-b.c:15014", "0.0.0.0:1", "1.2.3.4:5", "node-1.example.com:80",
]  # fmt: skip
REFUSED = [
    ":1", "::1:1", "[::1", "::1]:1", "[::1]:", "[::1]:65536", "[::1]:01", "[::1]:-1", "[::1]x:1",
    "x[::1]:1", "[]:1", "[::1]:1:1", "a_b:1", "-a:1", "a-:1", ".a:1", "a.:1", "http://a:1", "a/b:1", "a:b", "1", ":",
    "[:1", "]:1", "a:1.",
]  # fmt: skip


def is_ipv6(text: str) -> bool:
    try:
        return not ipaddress.IPv6Address(text).scope_id
    except ValueError:
        return False


def test_schema_agent_and_python_agree_on_ipv6_addresses_to_listen_on() -> None:
    schemas = OF_CNI["healthAddress"], OF_CNI["controller"]["properties"]["healthAddress"]
    for address in ADDRESSES:
        value = f"[{address}]:15014"
        for schema in schemas:
            assert Draft7Validator(schema).is_valid(value) is is_ipv6(address), value
        if is_ipv6(address):
            assert AGENTS["healthAddress"].kind.parse_text(value) == (address, 15014)
        else:
            with pytest.raises(SettingError, match="HOST:PORT"):
                AGENTS["healthAddress"].kind.parse_text(value)


def test_schema_and_agent_agree_on_other_addresses_to_listen_on() -> None:
    schema = Draft7Validator(OF_CNI["healthAddress"])
    for value in TAKEN:
        assert schema.is_valid(value), value
        AGENTS["healthAddress"].kind.parse_text(value)
    for value in REFUSED:
        assert not schema.is_valid(value), value
        with pytest.raises(SettingError):
            AGENTS["healthAddress"].kind.parse_text(value)


@pytest.mark.parametrize("address", ["[::::]:1", "[1:2:3:4:5:6:7:8:9]:1", "[1::2::3]:1"])
def test_helm_refuses_an_address_that_is_none(refuse: Refuse, address: str) -> None:
    answer = refuse({"cni": {"healthAddress": address, "controller": {"healthAddress": address}}})
    assert "at '/cni/healthAddress'" in answer
    assert "at '/cni/controller/healthAddress'" in answer


@pytest.mark.parametrize("address", ["[::]:15014", "[2001:db8::7]:15014", "[1:2:3:4:5:6:7:8]:15014"])
def test_helm_takes_an_ipv6_address(render: Render, address: str) -> None:
    assert render({"cni": {"healthAddress": address}}).settings["HEALTH_ADDRESS"] == address


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_the_schema_refuses_what_the_agent_refuses(name: str) -> None:
    for value in REFUSED_BY_THE_AGENT[name]:
        with pytest.raises(SettingError):
            AGENTS[name].kind.parse_text(encode(value))
        assert not Draft7Validator(OF_CNI[name]).is_valid(value), value


@pytest.mark.parametrize(
    ("wrong", "path", "said"),
    [
        ({"cni": {"excludeNamespace": ["a"]}}, "/cni", "'excludeNamespace'"),
        ({"excludeNamespace": ["a"]}, "", "'excludeNamespace'"),
        ({"cni": {"excludeNamespaces": "istio-system"}}, "/cni/excludeNamespaces", "want array"),
        ({"cni": {"excludeNamespaces": ["a", "B"]}}, "/cni/excludeNamespaces/1", "does not match"),
        ({"cni": {"logLevel": "loud"}}, "/cni/logLevel", "'panic'"),
        ({"cni": {"tag": 1.1}}, "/cni/tag", "want integer or string"),
        ({"cni": {"cniBinDir": "opt/cni/bin"}}, "/cni/cniBinDir", "does not match"),
        ({"cni": {"cniConfDir": "/"}}, "/cni/cniConfDir", "does not match"),
        ({"cni": {"agentSocket": "/bin/agent.sock"}}, "/cni/agentSocket", "does not match"),
        ({"cni": {"agentSocket": "/run/agent.sock"}}, "/cni/agentSocket", "does not match"),
        ({"cni": {"agentSocket": "/run/containerd/agent.sock"}}, "/cni/agentSocket", "not"),
        ({"cni": {"agentSocket": "/run/../bin/agent.sock"}}, "/cni/agentSocket", "does not match"),
        ({"cni": {"healthAddress": "127.0.0.1:0"}}, "/cni/healthAddress", "does not match"),
        ({"cni": {"podAnnotations": {"a": 1}}}, "/cni/podAnnotations/a", "want string"),
        ({"cni": {"maxUnavailable": 0}}, "/cni/maxUnavailable", "minimum"),
        ({"cni": {"multus": {"enable": True}}}, "/cni/multus", "'enable'"),
        ({"platform": "openshift-5"}, "/platform", "'openshift-4'"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(refuse: Refuse, wrong: dict[str, Any], path: str, said: str) -> None:
    answer = refuse(wrong)
    assert f"at '{path}'" in answer
    assert said in answer


@pytest.mark.parametrize("what", WRONG_TAGS)
def test_an_invalid_tag_is_refused(refuse: Refuse, what: str) -> None:
    assert "at '/cni/tag'" in refuse({"cni": {"tag": WRONG_TAGS[what]}})


@pytest.mark.parametrize("what", WRONG_HUBS)
def test_an_invalid_hub_is_refused(refuse: Refuse, what: str) -> None:
    hub = WRONG_HUBS[what]
    answer = refuse({"cni": {"hub": hub, "controller": {"allowedHubs": [hub]}}})
    assert "at '/cni/hub'" in answer
    assert "at '/cni/controller/allowedHubs/0'" in answer


def test_the_schema_lists_exactly_the_presets() -> None:
    own = ["", *PLATFORMS]
    assert read_schema()["properties"]["platform"]["enum"] == [*own, "openshift"], "and a name of Istio's chart"


def test_helm_lint_reports_nothing(tmp_path: Path) -> None:
    done = helm("lint", "--strict", str(CHART), home=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "0 chart(s) failed" in done.stdout
