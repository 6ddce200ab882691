"""What a resource makes of the DaemonSet, laid over what the chart says; and whether that is there already."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest

from installer.config.control_plane import ControlPlaneSpec, read_control_plane
from installer.controller import field_ownership, pod_template
from installer.controller.pod_template import CHART_VALUES, RESOURCE_VALUES, RolloutError, build_wish, is_fulfilled
from installer.fleet.rollouts import template_generation
from installer.fleet.selection import unparked
from installer.kube.names import CONTROLLER, PARKED
from tests.chart.references import IMAGES
from tests.controller import samples
from tests.controller.samples import CHARTS, LINUX, TEMPLATE, daemonset, resource

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.pure

ASKED: dict[str, Any] = {
    "hub": "of.resource/mesh/",
    "tag": 20191204,
    "pullPolicy": "Never",
    "podAnnotations": {"of": "resource", "resource": "alone"},
    "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}},
    "cniBinDir": "/of/resource/bin",
    "cniConfDir": "/of/resource/net.d",
}
NOTE = ("f:metadata", "f:annotations", f"f:{RESOURCE_VALUES}")
CHARTS_NOTE = ("f:metadata", "f:annotations", f"f:{CHART_VALUES}")
OF_OTHERS = {"logLevel": "debug", "psp_cluster_role": "lenient", "excludeNamespaces": ["a"], "repairMode": "none"}


def asks(**cni: Any) -> ControlPlaneSpec:
    return read_control_plane(resource(values={"cni": cni}))


def template(of: ControlPlaneSpec | None, *, parked: bool = False) -> dict[str, Any]:
    made: dict[str, Any] = build_wish(daemonset(), of, parked=parked).manifest(daemonset())["spec"]["template"]
    return made


def test_only_values_that_need_new_pods_reach_the_template() -> None:
    assert pod_template.overriding(asks(**ASKED | OF_OTHERS)) == ASKED | {"tag": "20191204"}
    assert pod_template.overriding(asks(**OF_OTHERS)) == {}
    assert pod_template.overriding(None) == {}


def test_controller_owns_only_its_annotation_without_a_resource_or_pod_values() -> None:
    for of in (None, asks(**OF_OTHERS)):
        wished = build_wish(daemonset(), of, parked=False)
        assert (wished.own, wished.returned) == ({NOTE: "{}"}, {})
        assert "spec" not in wished.manifest(daemonset())


def test_controller_owns_only_the_fields_that_the_resource_sets() -> None:
    made = template(asks(**ASKED))
    assert made.keys() == {"metadata", "spec"}
    assert made["spec"].keys() == {"containers", "volumes"}
    (container,) = made["spec"]["containers"]
    assert container["image"] == "of.resource/mesh/install-cni:20191204"
    assert container["imagePullPolicy"] == "Never"
    assert container["resources"] == {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}
    assert made["metadata"]["annotations"] == {"of": "resource", "resource": "alone"}
    assert [each["value"] for each in container["env"]] == ["/of/resource/bin", "/of/resource/net.d"]
    assert [each["hostPath"]["path"] for each in made["spec"]["volumes"]] == ["/of/resource/bin", "/of/resource/net.d"]


@pytest.mark.parametrize("name", ASKED)
def test_each_value_owns_only_its_own_fields(name: str) -> None:
    wished = build_wish(daemonset(), asks(**{name: ASKED[name]}), parked=False)
    others = build_wish(daemonset(), asks(**{key: value for key, value in ASKED.items() if key != name}), parked=False)
    both = wished.own.keys() & others.own.keys() - {NOTE}
    image = {field for field in both if field[-1] == "f:image"}
    assert both == image
    assert bool(image) is (name in ("hub", "tag"))


def test_removed_value_returns_to_the_charts_value_and_owner() -> None:
    chart = samples.owner("helm", [CHARTS_NOTE])
    seen = daemonset(build_wish(daemonset(), asks(**ASKED), parked=False))
    seen["metadata"]["managedFields"].append(chart)
    wished = build_wish(seen, asks(pullPolicy="Never"), parked=False)
    assert not is_fulfilled(seen, wished)
    made = wished.manifest(seen)["spec"]["template"]
    (container,) = made["spec"]["containers"]
    assert container["image"] == "of.chart/mesh/install-cni:1"
    assert container["resources"] == {"requests": {"cpu": "20m"}}, "the chart says nothing of limits"
    assert made["metadata"]["annotations"] == {"of": "chart"}
    ours, theirs = wished.handed_over(seen | {"metadata": seen["metadata"]})
    assert theirs["manager"] == "helm"
    helms = field_ownership.applied_by({"metadata": {"managedFields": [theirs]}}, "helm")
    assert helms == {CHARTS_NOTE, *wished.returned}
    # What nobody else wants goes with the apply before.
    kept = field_ownership.applied_by({"metadata": {"managedFields": [ours]}}, CONTROLLER)
    assert kept >= wished.own.keys()
    assert not kept & wished.returned.keys()


def test_applying_manager_gets_the_field_before_an_updating_one() -> None:
    seen = daemonset(build_wish(daemonset(), asks(tag="2"), parked=False))
    for operation in ("Update", "Apply"):
        seen["metadata"]["managedFields"].append(samples.owner("helm", [CHARTS_NOTE], operation))
    wished = build_wish(seen, None, parked=False)
    by_operation = {each["operation"]: each for each in wished.handed_over(seen) if each["manager"] == "helm"}
    assert "f:spec" in by_operation["Apply"]["fieldsV1"]
    assert "f:spec" not in by_operation["Update"]["fieldsV1"]


def test_object_to_apply_has_its_identity_and_the_resource_values() -> None:
    made = build_wish(daemonset(), asks(tag="2", hub="h"), parked=False).manifest(daemonset())
    assert made.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert (made["apiVersion"], made["kind"]) == ("apps/v1", "DaemonSet")
    annotations = {RESOURCE_VALUES: '{"hub": "h", "tag": "2"}'}
    assert made["metadata"] == {"namespace": "mesh", "name": "istio-cni-node", "annotations": annotations}


@pytest.mark.parametrize(("hub", "tag"), IMAGES)
def test_the_image_is_that_of_hub_and_tag(hub: str, tag: str | int) -> None:
    (container,) = template(asks(hub=hub, tag=tag))["spec"]["containers"]
    assert container["image"] == IMAGES[hub, tag]


def test_an_empty_tag_is_the_charts() -> None:
    (container,) = template(asks(hub="h", tag=""))["spec"]["containers"]
    assert container["image"] == f"h/install-cni:{CHARTS['tag']}"


def test_parking_selects_no_node_and_unparking_restores_the_selector() -> None:
    parked = daemonset(build_wish(daemonset(), None, parked=True))
    assert parked["spec"]["template"]["spec"]["nodeSelector"] == LINUX | PARKED
    assert pod_template.is_parked(parked)
    assert not pod_template.is_parked(daemonset())
    by_another = deepcopy(parked)
    del by_another["metadata"]["managedFields"]
    for each in (parked, by_another):
        again = build_wish(each, None, parked=False)
        assert not is_fulfilled(each, again)
        seen = samples.written(each, again)
        assert seen["spec"]["template"]["spec"]["nodeSelector"] == LINUX
        assert is_fulfilled(seen, build_wish(seen, None, parked=False))
    for each in (parked, daemonset()):
        assert unparked(each).is_for("", LINUX | {"a": "b"})
        assert not unparked(each).is_for("", {"kubernetes.io/os": "windows"})
        assert not unparked(each).is_for("", {})


@pytest.mark.parametrize("of", [None, asks(**ASKED)], ids=["chart", "resource"])
@pytest.mark.parametrize("parked", [False, True])
def test_write_is_needed_only_if_the_daemonset_differs(of: ControlPlaneSpec | None, parked: bool) -> None:
    wished = build_wish(daemonset(), of, parked=parked)
    assert not is_fulfilled(daemonset(), wished)
    seen = daemonset(wished)
    assert is_fulfilled(seen, build_wish(seen, of, parked=parked))
    for field in wished.own:
        changed = {**wished.own, field: "another"}
        assert not is_fulfilled(seen, pod_template.Wish(changed, {})), field
    assert len(wished.own) == 1 + parked + (10 if of else 0)


def test_owned_field_that_the_resource_lacks_needs_a_write() -> None:
    seen = daemonset(build_wish(daemonset(), asks(**ASKED), parked=False))
    wished = build_wish(seen, None, parked=False)
    assert pod_template.owns_more(seen, wished)
    assert not is_fulfilled(seen, pod_template.Wish(wished.own, {}))


@pytest.mark.parametrize("path", ["containers", "volumes", "nodeSelector"])
def test_daemonset_without_a_desired_list_differs(path: str) -> None:
    wished = build_wish(daemonset(), asks(**ASKED), parked=True)
    seen = daemonset(wished)
    del seen["spec"]["template"]["spec"][path]
    assert not is_fulfilled(seen, wished)


@pytest.mark.parametrize(
    ("chart", "seen", "missing"),
    [
        (None, "None", sorted(CHARTS)),
        ("", "None", sorted(CHARTS)),
        ("{", "'{'", sorted(CHARTS)),
        ("[]", "'[]'", sorted(CHARTS)),
        ("{}", "'{}'", sorted(CHARTS)),
        (json.dumps(dict.fromkeys(map(str, range(100)))), "'{", sorted(CHARTS)),
        (json.dumps({key: value for key, value in CHARTS.items() if key not in ("hub", "tag")}), "'{", ["hub", "tag"]),
    ],
)
def test_daemonset_of_another_chart_is_an_error_that_names_what_is_missing(
    chart: str | None, seen: str, missing: list[str]
) -> None:
    with pytest.raises(RolloutError) as error:
        build_wish(daemonset(chart=chart), None, parked=False)
    said = str(error.value)
    assert said.startswith(f"DaemonSet mesh/istio-cni-node: saw the annotation {CHART_VALUES}={seen}")
    assert f", expected a JSON object with {', '.join(missing)}; helm upgrade with the chart of this" in said
    assert len(said) < 600


@pytest.mark.parametrize(
    ("annotations", "is_of_a_resource", "generation"),
    [
        (None, False, ""),
        ({}, False, ""),
        ({RESOURCE_VALUES: ""}, False, ""),
        ({RESOURCE_VALUES: "{}", "deprecated.daemonset.template.generation": TEMPLATE}, False, TEMPLATE),
        ({RESOURCE_VALUES: '{"tag": "2"}'}, True, ""),
    ],
)
def test_annotations_hold_resource_values_and_template_generation(
    annotations: Mapping[str, str] | None, is_of_a_resource: bool, generation: str
) -> None:
    seen = {"metadata": {"annotations": annotations} if annotations is not None else {}}
    assert pod_template.is_of_a_resource(seen) is is_of_a_resource
    assert template_generation(seen) == generation
