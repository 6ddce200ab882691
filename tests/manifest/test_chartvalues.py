"""What the chart is told of a resource, and what nothing reads."""

from __future__ import annotations

from typing import Any

import pytest

from installer.manifest import helm
from installer.manifest.chartvalues import Refused, Request, build_request, move_set_values
from tests.chart.helm import CHART

pytestmark = pytest.mark.pure

KNOWN = helm.value_names(CHART)


def asked(spec: dict[str, Any]) -> Request:
    return build_request({"metadata": {"name": "a", "namespace": "mesh"}, "spec": spec}, KNOWN)


def test_an_empty_resource_keeps_the_charts_values() -> None:
    assert asked({}) == Request(enabled=True, namespace="mesh", values={"cni": {}}, notes=())


def test_values_of_the_resource_become_chart_values() -> None:
    spec = {
        "hub": "h", "tag": 1, "cni": {"enabled": True, "components": {"cni": {"namespace": "kube-system"}}},
        "values": {"cni": {"tag": "2", "logLevel": "debug", "excludeNamespaces": []}, "global": {"x": 1}},
        "unvalidatedValues": {"cni": {"logLevel": "info", "maxUnavailable": "10%"}},
        "gateways": {"enabled": True},
    }  # fmt: skip
    cni = {"hub": "h", "tag": "2", "logLevel": "info", "excludeNamespaces": [], "maxUnavailable": "10%"}
    assert asked(spec | {"platform": "gke"}) == Request(
        enabled=True,
        namespace="kube-system",
        values={"cni": cni | {"namespace": "kube-system"}, "platform": "gke"},
        notes=(),
    )


def test_enabled_false_is_read() -> None:
    assert not asked({"cni": {"enabled": False}}).enabled


def test_fields_without_effect_are_named() -> None:
    spec = {
        "cni": {"components": {"cni": {"k8s": {}}, "pilot": {}}},
        "unvalidatedValues": {"cni": {"maxUnavailabl": 1, "zzz": {}}},
    }
    near, far, pilot, k8s = asked(spec).notes
    assert near == "spec.unvalidatedValues.cni.maxUnavailabl has no effect: no such value; is maxUnavailable meant?"
    assert far.startswith("spec.unvalidatedValues.cni.zzz has no effect: no such value; expected one of affinity, ")
    assert pilot.startswith("spec.cni.components.pilot has no effect")
    assert k8s.startswith("spec.cni.components.cni.k8s has no effect")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"cni": {"enable": False}}, "spec.cni.enable: no such value; is enabled meant?"),
        ({"cni": {"xyz": 1}}, "spec.cni.xyz: no such value; expected one of components, enabled"),
        ({"values": {"cni": {"logLevl": "x"}}}, "spec.values.cni.logLevl: no such value; is logLevel meant?"),
        ({"values": {"cni": {"logLevel": "loud"}}}, "spec.values.cni.logLevel: saw 'loud', expected one of panic, "),
        ({"platform": 4}, "spec.platform: saw 4, expected a string"),
        ({"cni": []}, "spec.cni: saw [], expected a mapping"),
    ],
)
def test_a_wrong_field_is_refused_with_its_path(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused) as error:
        asked(spec)
    assert said in str(error.value)


def test_all_wrong_fields_are_named_at_once() -> None:
    with pytest.raises(Refused) as error:
        asked({"cni": {"enable": 1}, "values": {"cni": {"a": 1, "b": 2}}})
    assert len(str(error.value).splitlines()) == 3


def test_a_misplaced_field_is_named_with_its_place() -> None:
    assert asked({"cniBinDir": "/x", "unvalidatedvalues": {}, "profile": "p", "gateways": {}}).notes == (
        "spec.cniBinDir has no effect: is spec.values.cni.cniBinDir meant?",
        "spec.unvalidatedvalues has no effect: is spec.unvalidatedValues meant?",
    )


def test_a_value_set_without_a_path_goes_to_values_cni() -> None:
    before = {"hub": "h", "values": {"cni": {"tag": "1", "cniBinDir": "/a"}}}
    spec = move_set_values(before, before | {"cniBinDir": "/home/kubernetes/bin", "platform": "gke"})
    assert spec == {
        "hub": "h",
        "values": {"cni": {"tag": "1", "cniBinDir": "/home/kubernetes/bin"}},
        "platform": "gke",
    }


def test_hub_and_tag_are_fields_of_the_spec_itself() -> None:
    assert move_set_values({}, {"hub": "h", "tag": 1}) == {"hub": "h", "tag": 1}


def test_a_top_level_field_of_a_file_is_kept() -> None:
    before = {"gateways": {"enabled": True}, "cniBinDir": "/x"}
    assert move_set_values(before, before | {"gateways": {"enabled": False}}) == before | {
        "gateways": {"enabled": False}
    }


def test_an_unknown_name_in_set_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Refused) as error:
        move_set_values({}, {"cniBinDri": "/x", "cniConfDir": "/y"})
    assert str(error.value) == "--set cniBinDri: no such value; is cniBinDir meant?"
