"""What an IstioControlPlane asks for, as people wrote it in 2019 and since; what is wrong is named with its path."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from installer.config.control_plane import ControlPlaneSpec, InvalidControlPlaneError, read_control_plane
from installer.config.settings import parse_settings
from installer.config.value_types import LogLevel
from installer.config.values import resource_values
from tests.chart.references import WRONG_HUBS, WRONG_TAGS

pytestmark = pytest.mark.pure

OF_THE_GUIDE = """
apiVersion: install.istio.io/v1alpha2
kind: IstioControlPlane
spec:
  cni:
    enabled: true
    components:
      cni:
        namespace: kube-system
  hub: docker.io/istio
  tag: 1.4.0
  values:
    cni:
      excludeNamespaces:
       - istio-system
       - kube-system
       - foo_ns
       - bar_ns
      tag: 1.4.1
      cniBinDir: /var/lib/cni/bin
  unvalidatedValues:
    cni:
      logLevel: info
"""
IN_2019 = (
    "hub tag pullPolicy logLevel excludeNamespaces cniBinDir cniConfDir cniConfFileName psp_cluster_role podAnnotations"
)


def read(text: str) -> ControlPlaneSpec:
    return read_control_plane(yaml.safe_load(text))


def problems(resource: dict[str, Any]) -> list[str]:
    with pytest.raises(InvalidControlPlaneError) as refused:
        read_control_plane(resource)
    return [str(each) for each in refused.value.problems]


@pytest.mark.parametrize("block", ["values", "unvalidatedValues"])
@pytest.mark.parametrize(
    ("resources", "path"),
    [
        ({"requests": [1]}, "resources.requests: saw [1]"),
        ({"requests": {"cpu": "abc"}}, "resources.requests.cpu: saw 'abc', expected a quantity, such as 100m or 128Mi"),
        ({"limit": {}}, "resources.limit: no such value; is limits meant?"),
        ({"claims": ["a"]}, "resources.claims.0: saw 'a', expected a mapping"),
        ({"claims": {"name": "a"}}, "resources.claims: saw {'name': 'a'}, expected a list"),
        ({"claims": [{}]}, "resources.claims.0: saw {}, expected a mapping with name"),
        ({"claims": [{"request": "a"}]}, "resources.claims.0: saw {'request': 'a'}, expected a mapping with name"),
        ({"claims": [{"name": 1}]}, "resources.claims.0.name: saw 1, expected a string"),
        ({"claims": [{"name": ""}]}, "resources.claims.0.name: saw an empty value, expected"),
        ({"claims": [{"name": "a", "requests": "b"}]}, "resources.claims.0.requests: no such value; is request meant?"),
    ],
)
def test_invalid_resource_requirements_are_named(block: str, resources: dict[str, Any], path: str) -> None:
    found = problems({"spec": {block: {"cni": {"resources": resources}}}})
    assert found[0].startswith(f"spec.{block}.cni.{path}")


WRONG_IMAGES = [("tag", each) for each in WRONG_TAGS.values()] + [("hub", each) for each in WRONG_HUBS.values()]


@pytest.mark.parametrize(("name", "value"), WRONG_IMAGES)
def test_an_invalid_image_is_named_with_its_path(name: str, value: str | int) -> None:
    expected = {
        "tag": "expected a tag, @sha256: and 64 lowercase hexadecimal digits, or both",
        "hub": "expected a registry",
    }
    for block in ("values", "unvalidatedValues"):
        found = problems({"spec": {block: {"cni": {name: value}}}})
        assert found[0].startswith(f"spec.{block}.cni.{name}: saw {value!r:.80}, {expected[name]}")
    assert problems({"spec": {name: value}})[0].startswith(f"spec.{name}: saw {value!r:.80}, {expected[name]}")


def test_the_guides_manifest_is_parsed_unchanged() -> None:
    found = read(OF_THE_GUIDE)
    assert found == ControlPlaneSpec(
        enabled=True,
        namespace="kube-system",
        given={
            "hub": "docker.io/istio",
            "tag": "1.4.1",
            "excludeNamespaces": ["istio-system", "kube-system", "foo_ns", "bar_ns"],
            "cniBinDir": "/var/lib/cni/bin",
            "logLevel": "info",
        },
        settings={
            "exclude_namespaces": ("istio-system", "kube-system", "foo_ns", "bar_ns"),
            "log_level": LogLevel.INFO,
        },
    )


def test_unvalidated_values_win() -> None:
    found = read("spec: {values: {cni: {logLevel: warn}}, unvalidatedValues: {cni: {logLevel: debug, others: 1}}}")
    assert found.settings == {"log_level": LogLevel.DEBUG}


def test_an_unvalidated_name_that_nothing_reads_is_noted() -> None:
    cni = "{logLevle: info, logLevel: info, maxUnavailable: 3, agentSocket: /run/x/y.sock}"
    found = read(f"spec: {{unvalidatedValues: {{cni: {cni}}}}}")
    assert found.given == {"logLevel": "info"}
    alone = "has no effect: only the chart sets it: helm upgrade --set cni"
    assert found.notes == (
        "spec.unvalidatedValues.cni.logLevle has no effect: no such value; is logLevel meant?",
        f"spec.unvalidatedValues.cni.maxUnavailable {alone}.maxUnavailable=…",
        f"spec.unvalidatedValues.cni.agentSocket {alone}.agentSocket=…",
    )


def test_empty_spec_is_enabled_and_sets_nothing() -> None:
    assert read("spec: {}") == read("kind: x") == ControlPlaneSpec(enabled=True, namespace=None)
    assert not read("spec: {cni: {enabled: false}}").enabled


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            "values: {cni: {excludeNamespace: [a]}}",
            "spec.values.cni.excludeNamespace: no such value; is excludeNamespaces meant?",
        ),
        (
            "values: {cni: {maxUnavailable: 1}}",
            "spec.values.cni.maxUnavailable: only the chart sets it: helm upgrade --set cni.maxUnavailable=",
        ),
        ("values: {cni: {zzz: 1}}", "spec.values.cni.zzz: no such value; expected one of chained"),
        (
            "values: {cni: {logLevel: loud}}",
            "spec.values.cni.logLevel: saw 'loud', expected one of panic, fatal, error, warn",
        ),
        ("values: {cni: {excludeNamespaces: a}}", "spec.values.cni.excludeNamespaces: saw 'a', expected a list"),
        ("values: {cni: {excludeNamespaces: [a, 1]}}", "spec.values.cni.excludeNamespaces.1: saw 1, expected a string"),
        ("values: {cni: {excludeNamespaces: [A]}}", "spec.values.cni.excludeNamespaces.0: saw 'A', expected names of"),
        ("values: {cni: {cniBinDir: bin}}", "spec.values.cni.cniBinDir: saw 'bin', expected the absolute path"),
        ("values: {cni: {podAnnotations: {a: 1}}}", "spec.values.cni.podAnnotations.a: saw 1, expected a string"),
        ("unvalidatedValues: {cni: {logLevel: 3}}", "spec.unvalidatedValues.cni.logLevel: saw 3, expected a string"),
        (
            "unvalidatedValues: {cni: {logLevel: loud}}",
            "spec.unvalidatedValues.cni.logLevel: saw 'loud', expected one of",
        ),
        ("cni: {enabled: 'yes'}", "spec.cni.enabled: saw 'yes', expected true or false"),
        ("cni: {components: []}", "spec.cni.components: saw [], expected a mapping"),
        ("hub: 1", "spec.hub: saw 1, expected a string"),
        ("values: 7", "spec.values: saw 7, expected a mapping"),
    ],
)
def test_problem_has_the_path_of_its_field(spec: str, said: str) -> None:
    found = problems(yaml.safe_load(f"spec: {{{spec}}}"))
    assert [each.startswith(said) for each in found] == [True], found


def test_all_problems_are_reported_at_once() -> None:
    found = problems(yaml.safe_load("spec: {cni: {enabled: 1}, values: {cni: {logLevel: loud, tagg: x}}}"))
    paths = {each.partition(":")[0] for each in found}
    assert paths == {"spec.cni.enabled", "spec.values.cni.logLevel", "spec.values.cni.tagg"}


def test_every_value_of_the_2019_chart_keeps_its_name() -> None:
    assert set(IN_2019.split()) <= set(resource_values())


def test_every_default_is_valid_and_changes_nothing() -> None:
    found = read_control_plane({"spec": {"values": {"cni": {k: v.default for k, v in resource_values().items()}}}})
    assert replace(parse_settings(), **found.settings) == parse_settings()
