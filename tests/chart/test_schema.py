"""The schema of the chart's values, and the declared settings: one set of names, types and defaults."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from installer.config.kinds import SettingError, encode
from installer.config.settings import declarations
from tests.chart.helm import CHART, PLATFORMS, read_schema
from tests.chart.samples import CHANGED, WRONG

pytestmark = pytest.mark.pure

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


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_each_setting_has_a_sample_other_than_its_default(name: str) -> None:
    assert name in CHANGED, f"{name}: add a value other than its default to CHANGED in tests/chart/samples.py"
    declared = AGENTS[name]
    text = encode(CHANGED[name])
    assert declared.kind.parse_text(text) != declared.kind.parse_text(declared.default_text)
    assert Draft7Validator(OF_CNI[name]).is_valid(CHANGED[name])


def test_each_sample_is_of_a_setting() -> None:
    assert CHANGED.keys() | WRONG.keys() == AGENTS.keys()


BY_PATTERN = sorted(name for name in AGENTS if "pattern" in OF_CNI[name])


@pytest.mark.parametrize("name", BY_PATTERN)
@given(data=st.data())
def test_agent_parses_every_value_that_the_schema_allows(name: str, data: st.DataObject) -> None:
    pattern = OF_CNI[name]["pattern"].removeprefix("^").removesuffix("$")
    longest = OF_CNI[name].get("maxLength", 4095)
    text = data.draw(st.from_regex(pattern, fullmatch=True).filter(lambda text: len(text) <= longest))
    AGENTS[name].kind.parse_text(text)


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


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_the_schema_refuses_what_the_agent_refuses(name: str) -> None:
    assert name in WRONG, f"{name}: add wrong values of it to WRONG in tests/chart/samples.py"
    for value in WRONG[name]:
        with pytest.raises(SettingError):
            AGENTS[name].kind.parse_text(encode(value))
        assert not Draft7Validator(OF_CNI[name]).is_valid(value), value


@pytest.mark.parametrize("page", ["docs/configuration.md", "docs/install.md", "charts/istio-cni/values.yaml"])
def test_each_list_of_platforms_has_every_preset(page: str) -> None:
    text = (CHART.parents[1] / page).read_text()
    assert [name for name in PLATFORMS if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)] == []


def test_the_schema_lists_exactly_the_presets() -> None:
    own = ["", *PLATFORMS]
    assert read_schema()["properties"]["platform"]["enum"] == [*own, "openshift"], "and a name of Istio's chart"
