"""On which nodes a DaemonSet runs pods, by its template (F40). test_selection_live.py asks Kubernetes the same."""

from __future__ import annotations

from typing import Any

import pytest

from installer.fleet import selection
from installer.fleet.selection import Runs
from tests.fleet.selections import ALL, CASES, NODES, TOLERANT, UNCLEAR, requiring, taint, tolerating

pytestmark = pytest.mark.pure


def starts_on(template: dict[str, Any]) -> set[str]:
    read = selection.read(template)
    return {name for name, node in NODES.items() if read.runs_on(name, node.labels, node.taints).starts}


@pytest.mark.parametrize("case", CASES)
def test_selection_agrees_on_where_a_pod_starts(case: str) -> None:
    template, expected = CASES[case]
    assert starts_on(template) == expected
    assert not selection.read(template).unclear


@pytest.mark.parametrize("case", UNCLEAR)
def test_unknown_affinity_selects_nothing_and_is_named(case: str) -> None:
    template, expected = UNCLEAR[case]
    assert starts_on(template) == expected
    assert selection.read(template).unclear


@pytest.mark.parametrize(
    "template",
    [
        TOLERANT | {"nodeSelector": None, "affinity": None, "nodeName": None, "hostNetwork": None},
        TOLERANT | {"affinity": {"nodeAffinity": None, "podAffinity": {}}},
        TOLERANT | {"affinity": {"nodeAffinity": {}}},
    ],
)
def test_null_and_empty_fields_select_as_if_absent(template: dict[str, Any]) -> None:
    assert starts_on(template) == ALL


def test_empty_required_terms_select_nothing() -> None:
    assert starts_on(requiring()) == set()
    assert starts_on(requiring({"matchExpressions": None, "matchFields": []})) == set()


def test_a_template_with_a_node_name_selects_that_node() -> None:
    assert starts_on(TOLERANT | {"nodeName": "gpu"}) == {"gpu"}


@pytest.mark.parametrize(
    ("template", "taints", "runs"),
    [
        ({}, [], Runs(starts=True, stays=True)),
        ({}, [taint("a")], Runs(starts=False, stays=True)),
        ({}, [taint("a", "NoExecute")], Runs(starts=False, stays=False)),
        ({}, [taint("a"), taint("b", "NoExecute")], Runs(starts=False, stays=False)),
        (tolerating(key="b", operator="Exists"), [taint("a"), taint("b", "NoExecute")], Runs(starts=False, stays=True)),
        ({}, [taint("a", "PreferNoSchedule")], Runs(starts=True, stays=True)),
        ({}, [{"key": "a", "value": None, "effect": "NoSchedule"}], Runs(starts=False, stays=True)),
        (tolerating(key="a", operator="Exists", value=None), [taint("a", value="b")], Runs(starts=True, stays=True)),
        (tolerating(key="a", operator="Like", value="b"), [taint("a", value="b")], Runs(starts=False, stays=True)),
        ({"nodeSelector": {"a": "b"}}, [], Runs(starts=False, stays=False)),
    ],
)
def test_only_evicting_changes_end_a_running_pod(
    template: dict[str, Any], taints: list[dict[str, str]], runs: Runs
) -> None:
    assert selection.read(template).runs_on("node", {}, taints) == runs


@pytest.mark.parametrize(
    "template", [{"nodeSelector": ["a"]}, {"affinity": ["a"]}, {"affinity": {"nodeAffinity": "a"}}, 1]
)
def test_invalid_pod_template_is_rejected(template: Any) -> None:
    with pytest.raises((LookupError, TypeError, AttributeError)):
        selection.read(template)
