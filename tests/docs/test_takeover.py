"""The page "With a current Istio" has the commands that `install-cni takeover --check` prints, and in their order."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from installer.status import takeover
from installer.status.istio_agent import LABELS
from tests.docs.pages import DOCS, blocks

pytestmark = pytest.mark.pure

HUB = "registry.example.org/mesh"  # as the pages name it


def agent(**metadata: Any) -> dict[str, Any]:
    """Make a DaemonSet of Istio's own agent."""
    return {
        "metadata": {"name": "istio-cni-node", "namespace": "istio-system", "labels": {LABELS[0]: "Cni"}} | metadata,
        "spec": {"template": {"spec": {"containers": [{"name": "install-cni"}]}}},
    }


POD = {"metadata": {"namespace": "shop"}, "spec": {"initContainers": [{"name": "istio-init"}]}}
FOUND = {
    "istio-init": ([], [POD]),
    "helm": ([agent(annotations={"meta.helm.sh/release-name": "istio-cni"})], []),
    "istioctl": ([agent()], []),
    "Sail": ([agent(ownerReferences=[{"kind": "IstioCNI", "name": "default"}])], []),
}


def on_the_page() -> list[list[str]]:
    """Return the command blocks of the page, each a list of commands without comments and values that are carried over."""
    found = []
    for block in blocks(DOCS / "istio.md"):
        if block.language == "sh":
            lines = "\n".join(block.lines).replace("\\\n", " ").splitlines()
            found.append([text for line in lines if (text := _plain(line))])
    return found


def _plain(command: str) -> str:
    """Write a command alike, whatever its settings; a comment is nothing."""
    words = shlex.split(command, comments=True)
    carried = {at for at, word in enumerate(words) if word == "--set-json"}
    kept = [word for at, word in enumerate(words) if at not in carried and at - 1 not in carried]
    return shlex.join(kept).replace("REGISTRY/PATH", HUB)


@pytest.mark.parametrize("who", FOUND)
def test_the_page_has_the_commands_that_are_printed(who: str) -> None:
    daemonsets, pods = FOUND[who]
    plan = takeover.plan(daemonsets, {}, pods)
    assert plan.is_possible
    page = on_the_page()
    everywhere = [command for block in page for command in block]
    for commands in ([*map(_plain, plan.commands)], [*map(_plain, plan.back)]):
        if who in ("istio-init", "helm"):  # as they are, one after another
            assert any([each for each in block if each in commands] == commands for block in page), commands
        else:
            alike = [each.replace("helm upgrade --install", "helm upgrade") for each in commands]
            assert [each for each in alike if each not in everywhere and "delete" not in each] == []
