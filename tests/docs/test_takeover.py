"""The page "With a current Istio" has the commands that `install-cni takeover --check` prints, and a test runs each of them."""

from __future__ import annotations

from typing import Any

import pytest

from installer.status import takeover
from installer.status.istio_agent import LABELS
from tests.docs.istio_page import RUN_BY, all_commands, commands, without_settings
from tests.docs.pages import ROOT

pytestmark = pytest.mark.pure


def agent(namespace: str = "istio-system", **metadata: Any) -> dict[str, Any]:
    """Make a DaemonSet of Istio's own agent."""
    labels = {LABELS[0]: "Cni"} | metadata.pop("labels", {})
    return {
        "metadata": {"name": "istio-cni-node", "namespace": namespace, "labels": labels} | metadata,
        "spec": {"template": {"spec": {"containers": [{"name": "install-cni"}]}}},
    }


POD = {"metadata": {"namespace": "shop"}, "spec": {"initContainers": [{"name": "istio-init"}]}}
FOUND = {
    "istio-init": ([], [POD]),
    "helm": ([agent(annotations={"meta.helm.sh/release-name": "istio-cni"})], []),
    "istioctl": ([agent(labels={"operator.istio.io/managed": "Reconcile"})], []),
    "Sail": ([agent("istio-cni", ownerReferences=[{"kind": "IstioCNI", "name": "default"}])], []),
}


@pytest.mark.parametrize("who", FOUND)
def test_the_page_has_the_commands_that_are_printed(who: str) -> None:
    plan = takeover.plan(FOUND[who][0], {}, FOUND[who][1])
    assert plan.is_possible
    page = [[*map(without_settings, block)] for _, block in all_commands()]
    for printed in ([*map(without_settings, plan.commands)], [*map(without_settings, plan.back)]):
        assert any([each for each in block if each in printed] == printed for block in page), printed


def test_each_command_is_run_by_the_test_that_is_named() -> None:
    """Whoever adds a command to the page has a test run it, and then says so in `RUN_BY`."""
    blocks = {block: number for each in RUN_BY.values() for block, number in each.items()}
    assert sorted((where, commands(where, how)) for where, how in blocks) == sorted(all_commands())
    assert {block: len(commands(*block)) for block in blocks} == blocks
    for file, run in RUN_BY.items():
        text = (ROOT / file).read_text()
        assert [block for block in run if f'commands("{block[0]}", "{block[1]}")' not in text] == []
