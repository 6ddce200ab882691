"""What follows from the IstioControlPlanes: the oldest counts, a wrong one changes nothing, a deleted one takes all out."""

from __future__ import annotations

from typing import Any

import pytest

from installer.config.active import find_active_control_plane
from installer.config.desired import ControlPlaneRef, DesiredState, resolve_desired_state
from installer.config.settings import parse_settings
from installer.config.value_types import LogLevel
from plugin.backend import Backend

pytestmark = pytest.mark.pure

BASE = parse_settings({"exclude_namespaces": "of-the-chart", "cni_bin_dir": "/chart/bin"})
CHARTS = DesiredState(BASE)


def resource(name: str = "mesh", created: int = 1, *, terminating: bool = False, **cni: Any) -> dict[str, Any]:
    metadata = {"namespace": "istio-system", "name": name, "uid": f"uid-of-{name}", "generation": 3}
    metadata["creationTimestamp"] = f"2026-01-01T00:00:{created:02}Z"
    if terminating:
        metadata["deletionTimestamp"] = "2026-01-02T00:00:00Z"
    return {"metadata": metadata, "spec": {"values": {"cni": cni}}}


def test_without_a_resource_the_charts_settings_are_in_force() -> None:
    assert resolve_desired_state(BASE, [], CHARTS) == CHARTS


def test_live_settings_of_the_resource_override_the_charts() -> None:
    asked = resource(
        excludeNamespaces=["a", "b"], logLevel="debug", cniConfFileName="10-x.conflist", redirectBackend="nft"
    )
    made = resolve_desired_state(BASE, [asked], CHARTS)
    assert made.settings.exclude_namespaces == ("a", "b")
    assert made.settings.log_level is LogLevel.DEBUG
    assert made.settings.cni_conf_file_name == "10-x.conflist"
    assert made.settings.redirect_backend is Backend.NFT
    assert made.control_plane == ControlPlaneRef("istio-system", "mesh", "uid-of-mesh", 3)
    assert (made.installed, made.reason, made.problems) == (True, "", ())


def test_resource_being_deleted_is_not_active_if_another_exists() -> None:
    going, stays = resource("old", 1, terminating=True, logLevel="debug"), resource("young", 2, logLevel="info")
    made = resolve_desired_state(BASE, [going, stays], CHARTS)
    assert (made.installed, made.settings.log_level) == (True, LogLevel.INFO)
    assert find_active_control_plane([stays, going]) == stays
    assert find_active_control_plane([going]) == going


def test_resource_with_another_agent_namespace_changes_nothing() -> None:
    base = parse_settings({"daemonset": "istio-system/istio-cni-node"})
    asked = resource(logLevel="debug")
    asked["spec"]["cni"] = {"components": {"cni": {"namespace": "kube-system"}}, "enabled": False}
    made = resolve_desired_state(base, [asked], DesiredState(base))
    assert (made.settings, made.installed) == (base, True)
    assert str(made.problems[0]).startswith("spec.cni.components.cni.namespace: saw kube-system, expected istio-system")


def test_removed_setting_returns_to_the_charts_value() -> None:
    made = resolve_desired_state(BASE, [resource(excludeNamespaces=["a"])], CHARTS)
    assert resolve_desired_state(BASE, [resource(logLevel="info")], made).settings.exclude_namespaces == (
        "of-the-chart",
    )


def test_settings_that_need_a_new_pod_do_not_apply_live() -> None:
    assert resolve_desired_state(BASE, [resource(cniBinDir="/other/bin")], CHARTS).settings == BASE


def test_oldest_resource_sets_everything() -> None:
    young, old = resource("a-young", 2, logLevel="debug"), resource("old", 1, excludeNamespaces=["of-old"])
    made = resolve_desired_state(BASE, [young, old], CHARTS)
    assert made.control_plane is not None
    assert made.control_plane.name == "old"
    assert made.settings.log_level is BASE.log_level
    assert find_active_control_plane([resource("b"), resource("a")]) == resource("a"), (
        "of two of one second the first by name"
    )


@pytest.mark.parametrize("wrong", [{"logLevel": "loud"}, {"excludeNamespace": ["a"]}, {"excludeNamespaces": ["A"]}])
def test_an_invalid_resource_changes_no_setting(wrong: dict[str, Any]) -> None:
    good = resolve_desired_state(BASE, [resource(excludeNamespaces=["good"])], CHARTS)
    made = resolve_desired_state(BASE, [resource(**wrong)], good)
    assert (made.settings, made.installed, made.control_plane) == (good.settings, True, good.control_plane)
    assert made.problems[0].path.startswith(f"spec.values.cni.{next(iter(wrong))}")
    assert resolve_desired_state(BASE, [resource(excludeNamespaces=["good"])], made) == good


def test_enabled_false_removes_the_plugin_and_true_restores_it() -> None:
    off = resource(logLevel="debug")
    off["spec"]["cni"] = {"enabled": False}
    made = resolve_desired_state(BASE, [off], CHARTS)
    assert (made.installed, made.reason) == (False, "IstioControlPlane istio-system/mesh says enabled: false")
    assert made.settings.log_level is LogLevel.DEBUG
    assert resolve_desired_state(BASE, [resource()], made).installed


@pytest.mark.parametrize("wrong", [{}, {"logLevel": "loud"}])
def test_resource_being_deleted_uninstalls_the_plugin(wrong: dict[str, Any]) -> None:
    good = resolve_desired_state(BASE, [resource(excludeNamespaces=["good"])], CHARTS)
    made = resolve_desired_state(BASE, [resource(terminating=True, **wrong)], good)
    assert (made.installed, made.settings) == (False, good.settings)
    assert made.control_plane == good.control_plane


def test_plugin_stays_uninstalled_until_another_resource_exists() -> None:
    good = resolve_desired_state(BASE, [resource()], CHARTS)
    gone = resolve_desired_state(BASE, [], good)
    assert (gone.installed, gone.reason) == (False, "IstioControlPlane istio-system/mesh is deleted")
    assert resolve_desired_state(BASE, [], gone) == gone
    assert resolve_desired_state(BASE, [resource("other")], gone).installed


def test_next_oldest_resource_becomes_active_when_the_oldest_is_deleted() -> None:
    both = [resource("old"), resource("young", 2, excludeNamespaces=["of-young"])]
    made = resolve_desired_state(BASE, both[1:], resolve_desired_state(BASE, both, CHARTS))
    assert (made.installed, made.settings.exclude_namespaces) == (True, ("of-young",))
