"""What an IstioControlPlane asks for, as people wrote it in 2019 and since; what is wrong is named with its path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from installer.config.control_plane import ControlPlaneSpec, read_control_plane
from installer.config.schema import of_agents, schemas
from installer.config.settings import declarations, parse_settings
from tests.chart.references import WRONG_HUBS, WRONG_TAGS

if TYPE_CHECKING:
    from collections.abc import Callable

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


def read(text: str) -> ControlPlaneSpec | tuple[Any, ...]:
    return read_control_plane(yaml.safe_load(text))


@pytest.mark.parametrize("block", ["values", "unvalidatedValues"])
@pytest.mark.parametrize(
    ("resources", "path"),
    [
        ({"requests": [1]}, "resources.requests: saw [1]"),
        ({"requests": {"cpu": "abc"}}, "resources.requests.cpu: saw 'abc', expected a quantity, such as 100m or 128Mi"),
        ({"limit": {}}, "resources.limit: no such value; is limits meant?"),
        ({"claims": ["a"]}, "resources.claims.0: saw 'a'"),
    ],
)
def test_resources_that_no_pod_can_have_are_named(block: str, resources: dict[str, Any], path: str) -> None:
    found = read_control_plane({"spec": {block: {"cni": {"resources": resources}}}})
    assert isinstance(found, tuple)
    assert str(found[0]).startswith(f"spec.{block}.cni.{path}")


WRONG_IMAGES = [("tag", each) for each in WRONG_TAGS.values()] + [("hub", each) for each in WRONG_HUBS.values()]


@pytest.mark.parametrize(("name", "value"), WRONG_IMAGES)
def test_an_image_that_there_cannot_be_is_named_wherever_it_is_asked_for(name: str, value: str | int) -> None:
    expected = {
        "tag": "expected a tag, @sha256: and 64 lowercase hexadecimal digits, or both",
        "hub": "expected a registry",
    }
    for block in ("values", "unvalidatedValues"):
        found = read_control_plane({"spec": {block: {"cni": {name: value}}}})
        assert isinstance(found, tuple), block
        assert str(found[0]).startswith(f"spec.{block}.cni.{name}: saw {value!r:.80}, {expected[name]}")
    found = read_control_plane({"spec": {name: value}})
    assert isinstance(found, tuple)
    assert str(found[0]).startswith(f"spec.{name}: saw {value!r:.80}, {expected[name]}")


def test_the_manifest_of_the_guide_is_understood_as_it_is_written() -> None:
    found = read(OF_THE_GUIDE)
    assert found == ControlPlaneSpec(
        enabled=True,
        namespace="kube-system",
        agents={
            "exclude_namespaces": "istio-system,kube-system,foo_ns,bar_ns",
            "cni_bin_dir": "/var/lib/cni/bin",
            "log_level": "info",
        },
        daemonset={"hub": "docker.io/istio", "tag": "1.4.1"},
    )
    assert parse_settings(found.agents).exclude_namespaces[2] == "foo_ns"


def test_unvalidated_values_win() -> None:
    found = read("spec: {values: {cni: {logLevel: warn}}, unvalidatedValues: {cni: {logLevel: debug, others: 1}}}")
    assert isinstance(found, ControlPlaneSpec)
    assert found.agents == {"log_level": "debug"}


def test_an_unvalidated_name_that_nothing_reads_is_noted() -> None:
    cni = "{logLevle: info, logLevel: info, maxUnavailable: 3, agentSocket: /run/x/y.sock}"
    found = read(f"spec: {{unvalidatedValues: {{cni: {cni}}}}}")
    assert isinstance(found, ControlPlaneSpec)
    assert found.agents == {"log_level": "info"}
    alone = "has no effect: it is set by the chart alone: helm upgrade --set cni"
    assert found.notes == (
        "spec.unvalidatedValues.cni.logLevle has no effect: no such value; is logLevel meant?",
        f"spec.unvalidatedValues.cni.maxUnavailable {alone}.maxUnavailable=…",
        f"spec.unvalidatedValues.cni.agentSocket {alone}.agentSocket=…",
    )


def test_without_a_word_it_is_enabled_and_asks_for_nothing_else() -> None:
    assert (
        read("spec: {}") == read("kind: x") == ControlPlaneSpec(enabled=True, namespace=None, agents={}, daemonset={})
    )
    found = read("spec: {cni: {enabled: false}}")
    assert isinstance(found, ControlPlaneSpec)
    assert not found.enabled


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            "values: {cni: {excludeNamespace: [a]}}",
            "spec.values.cni.excludeNamespace: no such value; is excludeNamespaces meant?",
        ),
        (
            "values: {cni: {maxUnavailable: 1}}",
            "spec.values.cni.maxUnavailable: it is set by the chart alone: helm upgrade --set cni.maxUnavailable=",
        ),
        ("values: {cni: {zzz: 1}}", "spec.values.cni.zzz: no such value; expected one of chained"),
        ("values: {cni: {logLevel: loud}}", "spec.values.cni.logLevel: saw 'loud', expected panic, fatal, error, warn"),
        ("values: {cni: {excludeNamespaces: a}}", "spec.values.cni.excludeNamespaces: saw 'a', expected array"),
        ("values: {cni: {excludeNamespaces: [a, 1]}}", "spec.values.cni.excludeNamespaces.1: saw 1, expected string"),
        ("values: {cni: {excludeNamespaces: [A]}}", "spec.values.cni.excludeNamespaces: saw 'A', expected names of"),
        ("values: {cni: {cniBinDir: bin}}", "spec.values.cni.cniBinDir: saw 'bin', expected the absolute path"),
        ("values: {cni: {podAnnotations: {a: 1}}}", "spec.values.cni.podAnnotations.a: saw 1, expected string"),
        ("unvalidatedValues: {cni: {logLevel: 3}}", "spec.unvalidatedValues.cni.logLevel: saw 3, expected string"),
        (
            "unvalidatedValues: {cni: {logLevel: loud}}",
            "spec.unvalidatedValues.cni.logLevel: saw 'loud', expected one of",
        ),
        ("cni: {enabled: 'yes'}", "spec.cni.enabled: saw 'yes', expected true or false"),
        ("cni: {components: []}", "spec.cni.components: saw [], expected a mapping"),
        ("hub: 1", "spec.hub: saw 1, expected string"),
        ("values: 7", "spec.values: saw 7, expected a mapping"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(spec: str, said: str) -> None:
    found = read(f"spec: {{{spec}}}")
    assert isinstance(found, tuple)
    assert [str(each).startswith(said) for each in found] == [True], found


def test_all_that_is_wrong_is_named_at_once() -> None:
    found = read("spec: {cni: {enabled: 1}, values: {cni: {logLevel: loud, tagg: x}}}")
    assert isinstance(found, tuple)
    assert {each.path for each in found} == {"spec.cni.enabled", "spec.values.cni.logLevel", "spec.values.cni.tagg"}


def test_every_value_of_2019_is_known_by_its_name() -> None:
    assert set(IN_2019.split()) <= set(schemas())


def test_each_default_is_allowed_by_its_own_schema() -> None:
    agents = of_agents()
    assert {each.name for each in declarations()} >= {each.name for each in agents.values()}
    typed: dict[str, Callable[[str], object]] = {
        "array": lambda text: text.split(","),
        "boolean": lambda text: text == "true",
        "string": str,
    }
    given = {key: typed[each.schema["type"]](each.default) for key, each in agents.items()}
    found = read_control_plane({"spec": {"values": {"cni": given}}})
    assert isinstance(found, ControlPlaneSpec), found
    assert parse_settings(found.agents) == parse_settings()
