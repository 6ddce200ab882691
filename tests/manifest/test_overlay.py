"""Reading resources, laying them over each other, and writing them so that other parsers read the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from installer.manifest import overlay
from plugin.pod import ManifestError

pytestmark = pytest.mark.pure

OWN = "{apiVersion: install.istio.io/v1alpha2, kind: IstioControlPlane, metadata: {name: a}, spec: {hub: x}}"


def one(text: str) -> tuple[dict[str, object], list[str]]:
    return overlay.control_plane(overlay.read_objects(text))


def test_fields_that_the_api_server_adds_are_dropped() -> None:
    read, _ = one(
        "{apiVersion: install.istio.io/v1alpha2, kind: IstioControlPlane, spec: {hub: x}, status: {nodes: {total: 1}},"
        " metadata: {name: a, namespace: b, uid: u, resourceVersion: '1', finalizers: [f], labels: {l: m},"
        " annotations: {kubectl.kubernetes.io/last-applied-configuration: x, a: b}}}"
    )
    metadata = {"name": "a", "namespace": "b", "labels": {"l": "m"}, "annotations": {"a": "b"}}
    assert read == {"metadata": metadata, "spec": {"hub": "x"}}


def test_other_objects_are_named_and_left_out_also_in_a_list() -> None:
    _, others = one(f"{OWN}\n---\n{{kind: List, items: [{{kind: Pod, metadata: {{name: b}}}}]}}\n---\n{{kind: C}}")
    assert others == ["Pod b", "C"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "saw nothing, expected one IstioControlPlane (install.istio.io/v1alpha2)"),
        ("{kind: IstioOperator, metadata: {name: a}}", "saw IstioOperator a, expected one IstioControlPlane"),
        (f"{OWN}\n---\n{OWN}", "saw 2 of them, expected one"),
        (
            "{apiVersion: install.istio.io/v1alpha1, kind: IstioControlPlane}",
            "apiVersion: saw 'install.istio.io/v1alpha1', expected install.istio.io/v1alpha2",
        ),
        ("{apiVersion: install.istio.io/v1alpha2, kind: IstioControlPlane, metadata: x}", "metadata: saw 'x'"),
        ("a: b\nc: {[}", "line 2: "),
        ("just text", "saw 'just text', expected an object"),
        ("!!python/object:os.system {}", "expected YAML"),
    ],
)
def test_a_file_without_one_resource_is_refused_with_what_was_seen(text: str, said: str) -> None:
    with pytest.raises(ManifestError) as error:
        one(text)
    assert said in str(error.value)


def test_the_items_of_a_typed_list_get_its_kind() -> None:
    """As `kubectl get --raw` writes it: the items do not say what they are."""
    head = f"apiVersion: {overlay.API_VERSION}\nkind: IstioControlPlaneList\n"
    assert one(head + "items: [{metadata: {name: a}, spec: {hub: x}}]") == one(OWN)


def test_a_date_is_text_as_to_the_api_server() -> None:
    assert overlay.read_objects("{kind: a, tag: 2019-11-01}") == [{"kind": "a", "tag": "2019-11-01"}]
    assert overlay.read_objects("{kind: a, 1: b, yes: c, 2019-11-01: d}") == [
        {"kind": "a", "1": "b", "true": "c", "2019-11-01": "d"}
    ]


def test_the_merge_is_deep_replaces_lists_and_null_deletes() -> None:
    base = {"a": {"b": 1, "c": [1, 2], "d": 3}, "e": 4}
    over = {"a": {"c": [3], "d": None, "f": {"g": None, "h": 5}}, "i": 6}
    assert overlay.deep_merge(base, over) == {"a": {"b": 1, "c": [3], "f": {"h": 5}}, "e": 4, "i": 6}
    assert base == {"a": {"b": 1, "c": [1, 2], "d": 3}, "e": 4}


TEXTS = st.sampled_from(
    ["1e3", "y", "No", "0x1f", ".5e1", "~", "", " a", "a: b", "a #b", "12:30", "2019-11-01", "é\n", "-", "*"]
)


@given(st.dictionaries(TEXTS | st.text(), TEXTS | st.text() | st.integers() | st.booleans() | st.lists(TEXTS)))
def test_a_dumped_document_parses_to_the_same_value(document: dict[str, object]) -> None:
    assert overlay.read_objects(overlay.dump({"kind": "a", "spec": document}))[0] == {"kind": "a", "spec": document}


@pytest.mark.parametrize("text", ["1e3", "y", "N", ".5e1", "0o17", "1_000", "+1", "12:30:00"])
def test_text_that_another_parser_takes_for_a_number_or_boolean_is_quoted(text: str) -> None:
    assert overlay.dump({"key": text}) == f'key: "{text}"\n'


def test_invisible_characters_are_written_as_escapes() -> None:
    document = {"kind": "a", "metadata": {"annotations": {"a": "x\u202ey\x9b\x1b\u2028z", "b": "grün"}}}
    text = overlay.dump(document)
    assert text.replace("\n", "").isprintable()
    assert overlay.read_objects(text) == [document]
    assert "grün" in overlay.dump({"kind": "grün"})
