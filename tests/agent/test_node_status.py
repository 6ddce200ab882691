"""What a node reports about the plugin's current and earlier locations."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from installer.agent.node_status import Observed, build_status, stale_directories
from installer.config.desired import DesiredState
from installer.config.settings import parse_settings
from installer.config.values import Problem
from installer.fleet.state import Condition, NodeState
from plugin.backend import Backend, Capability

pytestmark = pytest.mark.pure

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
SETTINGS = parse_settings({"node_name": "node1"})
WELL = NodeState(installed=True, reason=None, conflist="10-k8s.conflist", digest="0" * 64)
CONFLICT = replace(WELL, installed=False, conflict=True, reason="another program keeps undoing it", conflist=None)
NOTHING_THERE = replace(CONFLICT, conflict=False, reason="no network configuration")
REMOVED = replace(WELL, installed=False, removed=True, conflist=None)


def said(node: NodeState, last: dict[str, Any]) -> dict[str, Any]:
    conditions = [Condition("installed", node.reason)]
    return build_status(
        Observed("0.1.0", DesiredState(SETTINGS), node, (), Capability(Backend.NFT), conditions, 0), last, NOW
    )


@pytest.mark.parametrize("node", [CONFLICT, NOTHING_THERE])
def test_the_last_installed_directories_are_reported_until_uninstalled(node: NodeState) -> None:
    well = said(WELL, {})
    ill = said(node, well)
    assert (ill["state"], ill["conflist"], ill["plugin"]) == ("NotInstalled", well["conflist"], well["plugin"])
    assert said(node, ill)["conflist"] == well["conflist"]
    assert not said(REMOVED, ill).keys() & {"conflist", "plugin"}
    assert not said(node, {}).keys() & {"conflist", "plugin"}, "it was never installed"


@pytest.mark.parametrize("node", [WELL, CONFLICT, NOTHING_THERE])
def test_changed_directories_are_reported_as_left_behind_in_any_node_state(node: NodeState) -> None:
    last = said(node, said(WELL, {}))
    assert stale_directories(last, SETTINGS) == ()
    other = replace(SETTINGS, cni_conf_dir=Path("/other/net.d"), cni_bin_dir=Path("/other/bin"))
    assert stale_directories(last, other) == (SETTINGS.cni_conf_dir, SETTINGS.cni_bin_dir)
    assert stale_directories(said(REMOVED, last), other) == ()


@pytest.mark.parametrize(
    ("node", "problems", "unredirected", "reason"),
    [
        (WELL, (), (), "Redirecting"),
        (replace(WELL, skipped=(("00-broken.conflist", "no JSON"),)), (), ("pod a/b: x",), "InvalidConflist"),
        (WELL, (Problem("spec.values.cni.logLevel", "saw x"),), (), "InvalidSettings"),
        (WELL, (), ("pod a/b: it was started without its redirect",), "PodsNotRedirected"),
    ],
)
def test_warnings_come_first_on_a_node_that_redirects(
    node: NodeState, problems: tuple[Problem, ...], unredirected: tuple[str, ...], reason: str
) -> None:
    seen = Observed(
        "0.1.0", DesiredState(SETTINGS, problems=problems), node, (), Capability(Backend.NFT),
        [Condition("installed", None)], 0, unredirected_pods=unredirected,
    )  # fmt: skip
    (ready,) = build_status(seen, {}, NOW)["conditions"]
    assert (ready["status"], ready["reason"]) == ("True", reason)
    assert ready["message"].endswith("pods are redirected by nft (has all features)")
    if node.skipped:
        assert ready["message"].startswith(
            "/etc/cni/net.d/00-broken.conflist is no valid network configuration: no JSON; correct or remove it"
        )


def test_a_plugin_file_that_stays_is_reported_with_the_reason() -> None:
    kept = said(replace(REMOVED, stays="/opt/cni/bin/istio-cni stays, as it is named in x"), said(WELL, {}))
    assert kept["state"] == "Removed"
    assert kept["plugin"] == {"path": "/opt/cni/bin/istio-cni", "sha256": "0" * 64}
    assert "stays, as it is named in x" in kept["conditions"][0]["message"]
    assert "plugin" not in said(REMOVED, kept)


def test_other_meshes_in_the_chain_are_reported() -> None:
    assert said(replace(WELL, meshes=("kuma-cni",)), {})["conflist"]["meshes"] == ["kuma-cni"]
    assert "meshes" not in said(WELL, {})["conflist"]
