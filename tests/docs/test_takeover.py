"""The page "With a current Istio" has the commands that `install-cni takeover --check` prints, and in their order."""

from __future__ import annotations

from typing import Any

import pytest

from installer.status import takeover
from installer.status.istio_agent import LABELS
from tests.docs.istio_page import all_commands, without_settings

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
