"""What a resource makes of the DaemonSet, laid over what the chart says; and whether that is there already."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from installer.controller import rollout
from installer.controller.rollout import CHART_VALUES, RESOURCE_VALUES, RolloutError, applied, is_applied
from installer.objects import PARKED
from installer.resource import Wanted, wanted
from tests.controller.samples import CHARTS, LINUX, TEMPLATE, daemonset, resource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ASKED: dict[str, Any] = {
    "hub": "of.resource/mesh/",
    "tag": 20191204,
    "pullPolicy": "Never",
    "podAnnotations": {"of": "resource", "resource": "alone"},
    "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}},
    "cniBinDir": "/of/resource/bin",
    "cniConfDir": "/of/resource/net.d",
}
OF_OTHERS = {"logLevel": "debug", "psp_cluster_role": "lenient", "excludeNamespaces": ["a"], "repairMode": "none"}


def asks(**cni: Any) -> Wanted:
    read = wanted(resource(values={"cni": cni}))
    assert isinstance(read, Wanted)
    return read


def template(of: Wanted | None, *, parked: bool = False) -> dict[str, Any]:
    made: dict[str, Any] = applied(daemonset(), of, parked=parked)["spec"]["template"]
    return made


def test_the_values_that_need_other_pods_are_taken_over_and_no_others() -> None:
    assert rollout.overriding(asks(**ASKED | OF_OTHERS)) == ASKED | {"tag": "20191204"}
    assert rollout.overriding(asks(**OF_OTHERS)) == {}
    assert rollout.overriding(None) == {}


def test_without_a_resource_it_is_as_the_chart_says() -> None:
    made = template(None)
    (container,) = made["spec"]["containers"]
    assert container == {
        "name": "install-cni",
        "image": "of.chart/mesh/install-cni:1",
        "imagePullPolicy": "Always",
        "resources": CHARTS["resources"],
        "env": [{"name": "CNI_BIN_DIR", "value": "/opt/cni/bin"}, {"name": "CNI_CONF_DIR", "value": "/etc/cni/net.d"}],
    }
    assert made["metadata"]["annotations"] == CHARTS["podAnnotations"]
    assert made["spec"]["volumes"] == [
        {"name": "cni-bin-dir", "hostPath": {"path": "/opt/cni/bin"}},
        {"name": "cni-conf-dir", "hostPath": {"path": "/etc/cni/net.d"}},
    ]


def test_what_a_resource_asks_for_is_laid_over_the_charts_key_by_key() -> None:
    made = template(asks(**ASKED))
    (container,) = made["spec"]["containers"]
    assert container["image"] == "of.resource/mesh/install-cni:20191204"
    assert container["imagePullPolicy"] == "Never"
    assert container["resources"] == {"requests": {"cpu": "1", "memory": "80Mi"}, "limits": {"cpu": "2"}}
    assert made["metadata"]["annotations"] == {"of": "resource", "chart": "alone", "resource": "alone"}
    assert [each["value"] for each in container["env"]] == ["/of/resource/bin", "/of/resource/net.d"]
    assert [each["hostPath"]["path"] for each in made["spec"]["volumes"]] == ["/of/resource/bin", "/of/resource/net.d"]


def test_the_object_says_whose_it_is_and_what_was_laid_over_it() -> None:
    made = applied(daemonset(), asks(tag="2", hub="h"), parked=False)
    assert made.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert (made["apiVersion"], made["kind"]) == ("apps/v1", "DaemonSet")
    annotations = {RESOURCE_VALUES: '{"hub": "h", "tag": "2"}'}
    assert made["metadata"] == {"namespace": "mesh", "name": "istio-cni-node", "annotations": annotations}


@pytest.mark.parametrize(
    ("hub", "tag", "image"),
    [
        ("", "1", "install-cni:1"),
        ("h", "1", "h/install-cni:1"),
        ("h:5000/a/", "1.4.0", "h:5000/a/install-cni:1.4.0"),
        ("h", 14, "h/install-cni:14"),
    ],
)
def test_the_image_is_that_of_hub_and_tag(hub: str, tag: str | int, image: str) -> None:
    (container,) = template(asks(hub=hub, tag=tag))["spec"]["containers"]
    assert container["image"] == image


def test_parked_no_node_fits_and_then_again_those_that_did() -> None:
    assert template(None)["spec"]["nodeSelector"] == LINUX
    parked = daemonset(applied(daemonset(), None, parked=True))
    assert parked["spec"]["template"]["spec"]["nodeSelector"] == LINUX | PARKED
    assert rollout.is_parked(parked)
    assert not rollout.is_parked(daemonset())
    again = applied(parked, None, parked=False)
    assert again["spec"]["template"]["spec"]["nodeSelector"] == LINUX
    assert not is_applied(parked, again)
    for each in (parked, daemonset()):
        assert rollout.selects(each, LINUX | {"a": "b"})
        assert not rollout.selects(each, {"kubernetes.io/os": "windows"})
        assert not rollout.selects(each, {})


def leaves(of: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each place in a tree that holds no other, as its parent and key; names find items of lists."""
    for key, value in [*of.items()] if isinstance(of, dict) else [*enumerate(of)]:
        if isinstance(value, (dict, list)):
            yield from leaves(value)
        elif key != "name":
            yield of, key


@pytest.mark.parametrize("of", [None, asks(**ASKED)], ids=["chart", "resource"])
@pytest.mark.parametrize("parked", [False, True])
def test_nothing_is_to_be_written_where_all_is_there_and_something_where_anything_is_not(
    of: Wanted | None, parked: bool
) -> None:
    wished = applied(daemonset(), of, parked=parked)
    assert not is_applied(daemonset(), wished)
    seen = daemonset(wished)
    assert is_applied(seen, wished)
    assert is_applied(seen, applied(seen, of, parked=parked))
    counted = 0
    for part in ("metadata", "spec"):
        for parent, key in leaves(wished[part]):
            before, parent[key] = parent[key], "another"
            assert not is_applied(seen, wished), (part, key)
            parent[key] = before
            counted += 1
    assert counted >= 12


def test_what_the_api_server_leaves_out_as_it_is_empty_is_there() -> None:
    charts = json.dumps(CHARTS | {"podAnnotations": {}, "resources": {}})
    wished = applied(daemonset(chart=charts), None, parked=False)
    seen = daemonset(wished, chart=charts)
    del seen["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert is_applied(seen, wished)


@pytest.mark.parametrize("path", ["containers", "volumes", "nodeSelector"])
def test_a_daemonset_without_a_list_that_is_asked_for_lacks_it(path: str) -> None:
    wished = applied(daemonset(), None, parked=False)
    seen = daemonset(wished)
    del seen["spec"]["template"]["spec"][path]
    assert not is_applied(seen, wished)


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
def test_of_another_charts_daemonset_it_says_what_is_missing(chart: str | None, seen: str, missing: list[str]) -> None:
    with pytest.raises(RolloutError) as error:
        applied(daemonset(chart=chart), None, parked=False)
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
def test_what_its_annotations_say(
    annotations: Mapping[str, str] | None, is_of_a_resource: bool, generation: str
) -> None:
    seen = {"metadata": {"annotations": annotations} if annotations is not None else {}}
    assert rollout.is_of_a_resource(seen) is is_of_a_resource
    assert rollout.template_generation(seen) == generation
