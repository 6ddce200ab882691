"""What a pipe is told of two glances, and programs of one."""

from __future__ import annotations

import json

import pytest
import yaml

from installer.status.changes import describe_changes
from installer.status.data import as_json, as_yaml
from tests.status.objects import NAMES, ago, answers, daemonset, instead, node, plane, report, summarize

pytestmark = pytest.mark.pure

REPORTS = [report(each) for each in NAMES]
WELL = summarize(answers())
FAILED = summarize(
    answers(reports=instead(REPORTS, report("node-2", ready="False", reason="NoConflist", message="a\nb")))
)


def test_first_status_lists_all_but_the_healthy_nodes() -> None:
    assert describe_changes(None, WELL) == [WELL.summary, "istio-system/istio: HEALTHY, generation 2"]
    assert describe_changes(None, FAILED)[-1] == "node-2: Failed: NoConflist: a b"


def test_unchanged_status_makes_no_line() -> None:
    assert describe_changes(FAILED, FAILED) == []
    more_pods = summarize(answers(reports=instead(REPORTS, report("node-2", pods={"redirected": 13}))))
    assert describe_changes(WELL, more_pods) == []


def test_node_failure_and_recovery_are_a_line_each() -> None:
    assert describe_changes(WELL, FAILED) == [FAILED.summary, "node-2: Failed: NoConflist: a b"]
    assert describe_changes(FAILED, WELL) == [WELL.summary, "node-2: Ready, 0.1.0, nft, 10-calico.conflist"]


def test_repair_and_removed_node_are_a_line_each() -> None:
    repaired = summarize(
        answers(
            nodes=[node(each) for each in NAMES[:2]],
            reports=[report("node-1"), report("node-2", repairs={"count": 1, "last": {"time": ago(), "file": "f"}})],
        )
    )
    assert describe_changes(WELL, repaired)[1:] == [
        "node-2: Ready, 0.1.0, nft, 10-calico.conflist, 1 repairs",
        "node-3: the node is gone",
    ]


def test_finding_and_its_resolution_are_a_line_each() -> None:
    alone = summarize(answers(controllers=[]))
    assert any(each.startswith("error: no Deployment istio-cni-controller") for each in describe_changes(WELL, alone))
    assert any(
        each.startswith("resolved: no Deployment istio-cni-controller") for each in describe_changes(alone, WELL)
    )


def test_control_plane_change_is_a_line() -> None:
    going = summarize(answers(planes=[plane(deletionTimestamp=ago(), status="UPDATING")]))
    assert "istio-system/istio: UPDATING, generation 2, is being deleted" in describe_changes(WELL, going)
    gone = summarize(answers(planes=[], reports=[report(each, settings=None) for each in NAMES]))
    assert "istio-system/istio: the IstioControlPlane was deleted" in describe_changes(WELL, gone)


@pytest.mark.parametrize("found", [WELL, FAILED, summarize(answers(daemonsets=[daemonset(updated=1)]))])
def test_json_and_yaml_say_the_same(found: object) -> None:
    assert json.loads(as_json(found)) == yaml.safe_load(as_yaml(found))  # type: ignore[arg-type]
    assert as_json(found, on_a_line=True).count("\n") == 1  # type: ignore[arg-type]


def test_json_has_every_node_with_every_field() -> None:
    read = json.loads(as_json(FAILED))
    assert (read["health"], read["progress"]) == ("Degraded", None)
    assert read["nodes"][0] == {
        "name": "node-2",
        "state": "Failed",
        "healthy": False,
        "reason": "NoConflist",
        "message": "a\nb",
        "remedy": None,
        "warning": None,
        "lastTransitionTime": "2026-05-01T08:40:00Z",
        "version": "0.1.0",
        "backend": "nft",
        "missingFeatures": [],
        "conflist": {"directory": "/etc/cni/net.d", "file": "10-calico.conflist", "form": "Chained"},
        "repairs": {"count": 0, "last": None},
        "redirectedPods": 12,
        "settings": "istio-system/istio@2",
        "pod": "istio-cni-node-node-2",
    }
