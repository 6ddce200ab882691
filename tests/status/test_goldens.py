"""What people see, whole, on terminals of 80 and 140 columns and in a pipe, so that a change of it is seen in review.

After a change on purpose: `python -m tests.status.test_goldens` writes them anew.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from installer.status.model import Answers, Cause, ClusterStatus, Unavailable
from installer.status.text import render_status
from installer.terminal.tables import Style
from tests.status.objects import NAMES, NOW, ago, answers, daemonset, instead, node, plane, pod, report, summarize

pytestmark = pytest.mark.pure

FOLDER = Path(__file__).with_name("goldens")
REPORTS = [report(each) for each in NAMES]
NO_CONFLIST = (
    "/etc/cni/net.d holds no network configuration, expected that of a primary CNI: install one, or set cniConfDir"
)
NOT_READ = (
    "/etc/cni/net.d/05-cilium.conflist is no valid network configuration: not JSON; correct or remove it: "
    "containerd loads no configuration while this file comes first. pods are redirected by nft"
)
PLUGIN = {"path": "/opt/cni/bin/istio-cni"}
REPAIRED = {
    "count": 4,
    "last": {"time": ago(minutes=5), "file": "/etc/cni/net.d/10-calico.conflist", "reason": "our entry was not there"},
}
LACKING = {"name": "iptables-legacy", "missing": [{"feature": "tproxy", "reason": "no module"}]}
LONG = "ip-10-0-128-201.eu-central-1.compute.internal"
MANY = [f"node-{each:04}" for each in range(5000)]
FORBIDDEN = Unavailable("nodes", Cause.FORBIDDEN, 'nodes is forbidden: User "jane" cannot list resource "nodes"')
CASES = {
    "healthy": answers(),
    "degraded": answers(
        planes=[
            plane(status="ERROR", said={"error": "spec.cni.components.cni.namespace: saw mesh, expected istio-system"}),
            plane("young", created=ago(hours=2), cni={"logLevel": "debug"}, status=""),
        ],
        nodes=[node(each) for each in (*NAMES, LONG)],
        pods=[pod("node-1", "ImagePullBackOff", "0/1"), pod("node-2"), pod("node-3"), pod(LONG)],
        reports=[
            report("node-1", version="0.0.9"),
            report("node-2", state="NotInstalled", ready="False", reason="NoConflist", message=NO_CONFLIST),
            report("node-3", repairs=REPAIRED, backend=LACKING),
            report(LONG, pods={}),
        ],
    ),
    "rollout": answers(
        planes=[plane(generation=3, status="UPDATING", said={"statusString": "1 of 3 nodes has it"})],
        reports=instead(REPORTS, report("node-1", settings=("istio", 3))),
    ),
    "uninstall": answers(
        planes=[plane(deletionTimestamp=ago(seconds=20), status="UPDATING")],
        reports=instead(
            REPORTS, report("node-1", state="Removed", ready="False", reason="Removed", pods={"redirected": 0})
        ),
    ),
    "removed": answers(
        planes=[],
        pods=[],
        reports=[report(each, state="Removed", ready="False", reason="Removed", pods={}) for each in NAMES],
        daemonsets=[daemonset(0, selector={"cni.istio.io/parked": "true"})],
    ),
    "warnings": answers(reports=[report(each, reason="InvalidConflist", message=NOT_READ) for each in NAMES]),
    "not-installed": Answers(),
    "not-installed-any-more": answers(
        daemonsets=[], pods=[], controllers=[], reports=[report("node-1", plugin=PLUGIN)]
    ),
    "not-found": answers(daemonsets=[], pods=[], controllers=[], namespace="shop"),
    "not-asked": answers(nodes=FORBIDDEN),
    "large": answers(
        daemonsets=[daemonset(5000)],
        nodes=[node(each) for each in MANY],
        pods=[pod(each) for each in MANY if each not in MANY[100:103]],
        reports=[
            report(each, ready="False", reason="NoConflist", message=NO_CONFLIST) if each < MANY[60] else report(each)
            for each in MANY
        ],
    ),
}
STYLES = {"80": Style(80, bar="█░"), "140": Style(140, bar="#-"), "pipe": Style()}
WIDE = "degraded.wide"
GOLDENS = [*(f"{name}.{width}" for name in CASES for width in STYLES), WIDE]


@cache
def render(golden: str) -> str:
    name, _, width = golden.partition(".")
    if golden == WIDE:
        return render_status(summary(name), NOW, STYLES["80"], wide=True)
    return render_status(summary(name), NOW, STYLES[width])


@cache
def summary(name: str) -> ClusterStatus:
    return summarize(CASES[name])


@pytest.mark.parametrize("name", GOLDENS)
def test_text_matches_the_golden(name: str) -> None:
    assert render(name) == (FOLDER / name).read_text()


@pytest.mark.parametrize("name", CASES)
def test_only_commands_exceed_the_terminal_width(name: str) -> None:
    for width in ("80", "140"):
        for line in render(f"{name}.{width}").splitlines():
            assert len(line) <= int(width) or line.startswith(("    kubectl ", "    helm ")), line


def test_wide_output_lists_all_nodes() -> None:
    whole = render_status(summary("large"), NOW, Style(), wide=True)
    assert all(f"\n{each} " in whole for each in MANY)
    assert render("large.80").count("\n") < 100


if __name__ == "__main__":
    for each in GOLDENS:
        (FOLDER / each).write_text(render(each))
