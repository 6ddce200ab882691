"""Which nodes get the startup taint, and which lose it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from installer.controller.taints import KEY, NEW, TAINT, build_event, decide_taints
from tests.controller.samples import NOW, node, pod, report, unready

if TYPE_CHECKING:
    from installer.fleet.objects import AgentPod, Node, Report

pytestmark = pytest.mark.pure

OTHER = {"key": "of.others/taint", "value": "a", "effect": "NoExecute"}
TAINTED = node(taints=(OTHER, TAINT, TAINT | {"effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}))
YOUNG = node(created=NOW - NEW + timedelta(seconds=1), taints=(OTHER,))
OFF, ON = [OTHER], [OTHER, TAINT]


@pytest.mark.parametrize(
    ("of", "its_pod", "left"),
    [
        (report(), pod(), OFF),
        (None, pod(), None),
        (report(), None, None),
        (report(ready=False), pod(), None),
        (report(ready=None), pod(), None),
        (report(), unready("NotReady"), None),
        (report(), pod(terminating=True), None),
    ],
)
def test_taint_stays_until_report_and_pod_are_ready(
    of: Report | None, its_pod: AgentPod | None, left: list[dict[str, Any]] | None
) -> None:
    for put in (True, False):
        assert decide_taints(TAINTED, of, its_pod, NOW, wanted=True, taint_new=put) == left
        assert decide_taints(TAINTED, of, its_pod, NOW, wanted=False, taint_new=put) == OFF, (
            "nobody else would take it off"
        )


@pytest.mark.parametrize(
    ("of", "given", "put", "wanted", "made"),
    [
        (YOUNG, None, True, True, ON),
        (YOUNG, None, False, True, None),
        (YOUNG, None, True, False, None),
        (YOUNG, report(ready=False), True, True, None),
        (node(created=NOW - NEW), None, True, True, None),
    ],
)
def test_new_nodes_without_a_report_are_tainted_if_enabled(
    of: Node, given: Report | None, put: bool, wanted: bool, made: list[dict[str, Any]] | None
) -> None:
    assert decide_taints(of, given, None, NOW, wanted=wanted, taint_new=put) == made


def test_taint_is_recognized_by_key_with_any_effect() -> None:
    assert (
        decide_taints(
            node(taints=(TAINT | {"effect": "NoExecute"},)), report(), pod(), NOW, wanted=True, taint_new=True
        )
        == []
    )
    others = node(taints=(OTHER | {"key": f"{KEY}-yet"},))
    assert decide_taints(others, report(), pod(), NOW, wanted=False, taint_new=True) is None


def test_taint_change_makes_an_event_with_its_reason() -> None:
    told = {(put, wanted): build_event(added=put, wanted=wanted) for put in (True, False) for wanted in (True, False)}
    assert [told[True, True].reason, told[False, True].reason] == ["IstioCNINotReady", "IstioCNIReady"]
    assert "is not ready on this new node" in told[True, True].message
    assert told[False, True].message == f"the Istio CNI plugin is ready: removed the taint {KEY}"
    assert told[False, False].message == f"this node has no Istio CNI plugin: removed the taint {KEY}"
    assert not any(each.warning for each in told.values())
