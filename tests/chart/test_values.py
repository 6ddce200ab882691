"""The chart as helm renders it: its values become the agents' environment, and a wrong one is refused with its path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from installer.config.kinds import encode
from installer.config.settings import declarations, parse_settings
from tests.chart.helm import CHART, helm
from tests.chart.references import WRONG_HUBS, WRONG_TAGS
from tests.chart.samples import CHANGED

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chart.conftest import Refuse, Render

pytestmark = pytest.mark.apiserver

AGENTS = [each for each in declarations() if each.in_chart]


def test_agent_gets_exactly_its_settings(render: Render) -> None:
    rendered = render()
    told = rendered.settings | {each["name"]: "" for each in rendered.container["env"]}
    in_the_image = {"PLUGIN_FILE", "PODS_FROM", "KUBECONFIG"}
    assert set(told) == {each.variable for each in declarations()} - in_the_image
    assert "envFrom" not in rendered.container


def test_each_value_reaches_its_setting(render: Render) -> None:
    told = render({"cni": CHANGED}).settings
    assert {each.key: told[each.variable] for each in AGENTS} == {
        each.key: encode(CHANGED[each.key]) for each in AGENTS
    }


def test_agent_parses_the_charts_environment(render: Render) -> None:
    names = {each.variable: each.name for each in declarations()}
    for cni in ({}, CHANGED, {"healthAddress": "", "excludeNamespaces": []}):
        parse_settings({names[variable]: text for variable, text in render({"cni": cni}).settings.items()})


@pytest.mark.parametrize("address", ["[::::]:1", "[1:2:3:4:5:6:7:8:9]:1", "[1::2::3]:1"])
def test_helm_refuses_an_address_that_is_none(refuse: Refuse, address: str) -> None:
    answer = refuse({"cni": {"healthAddress": address, "controller": {"healthAddress": address}}})
    assert "at '/cni/healthAddress'" in answer
    assert "at '/cni/controller/healthAddress'" in answer


@pytest.mark.parametrize("address", ["[::]:15014", "[2001:db8::7]:15014", "[1:2:3:4:5:6:7:8]:15014"])
def test_helm_takes_an_ipv6_address(render: Render, address: str) -> None:
    assert render({"cni": {"healthAddress": address}}).settings["HEALTH_ADDRESS"] == address


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


def test_helm_lint_reports_nothing(tmp_path: Path) -> None:
    done = helm("lint", "--strict", str(CHART), home=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "0 chart(s) failed" in done.stdout
