"""Contradictions between the runtime's and the agent's data on a pod: the pod is redirected, and the log says so (D9)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.plugin.conftest import STATUS, Agent, calls, config, handed_over, manifest, rules

if TYPE_CHECKING:
    from tests.support.call import Plugin
    from tests.support.netns import Netns

pytestmark = pytest.mark.kernel

MODE = "sidecar.istio.io/interceptionMode"
INJECT = "sidecar.istio.io/inject"
PORTS = "traffic.sidecar.istio.io/includeInboundPorts"
NO_UID = "K8S_POD_NAME=web;IgnoreUnknown=1;K8S_POD_NAMESPACE=shop"


def plain(**annotations: str) -> dict[str, Any]:
    """The pod shop/web as a manifest that no injector has seen, but for what is said."""
    given = manifest()
    given["metadata"]["annotations"] = annotations
    return given


def said(value: Any) -> dict[str, Any]:
    """RuntimeConfig with this in the place of the pod's annotations."""
    return {"io.kubernetes.cri.pod-annotations": value}


SAYS_NOTHING: dict[str, Any] = {"{}": {}, "null": None, "[]": [], "empty text": "", "false": False, "0": 0}


@pytest.mark.parametrize("value", SAYS_NOTHING)
async def test_a_pod_known_by_its_uid_is_redirected_though_the_runtime_passes_no_annotation(
    plugin: Plugin, agent: Agent, pod_netns: Netns, value: str
) -> None:
    async with agent.serving():
        stdin = config(plugin, agent, runtimeConfig=said(SAYS_NOTHING[value]))
        answer = await plugin(calls(plugin, agent, pod_netns.path), stdin)
    assert answer.status == 0, answer.stdout
    assert "15006" in rules(pod_netns)
    is_statement = isinstance(SAYS_NOTHING[value], dict | None)
    assert ("sidecar.istio.io/status differ" in agent.outcomes[-1].mismatch) == is_statement


@pytest.mark.slow
@pytest.mark.parametrize("value", ["[]", "empty text", "false", "0"])
async def test_missing_evidence_passes_no_pod_without_an_agent(
    plugin: Plugin, agent: Agent, pod_netns: Netns, value: str
) -> None:
    stdin = config(plugin, agent, runtimeConfig=said(SAYS_NOTHING[value]))
    waiting = asyncio.create_task(plugin(calls(plugin, agent, pod_netns.path), stdin))
    await asyncio.sleep(1.5)
    assert not waiting.done()
    async with agent.serving():
        answer = await waiting
    assert answer.status == 0, answer.stdout
    assert "15006" in rules(pod_netns)


DISAGREE: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "injected, says the runtime alone": (plain(), STATUS, "sidecar.istio.io/status differ"),
    "opted out since": (manifest(**{INJECT: "false"}), STATUS, f"{INJECT} differ"),
    "opted out, says the runtime alone": (manifest(), STATUS | {INJECT: "false"}, f"{INJECT} differ"),
    "mode NONE since": (manifest(**{MODE: "NONE"}), STATUS, f"{MODE} differ"),
    "mode NONE, says the runtime alone": (manifest(), STATUS | {MODE: "NONE"}, f"{MODE} differ"),
    "other ports": (manifest(**{PORTS: "15006"}), STATUS | {PORTS: "99"}, f"{PORTS} differ"),
}


@pytest.mark.parametrize("case", DISAGREE)
async def test_a_pod_passes_only_if_both_sources_agree(
    plugin: Plugin, agent: Agent, pod_netns: Netns, case: str
) -> None:
    known, annotations, mismatch = DISAGREE[case]
    agent.pods.add(known)
    async with agent.serving():
        stdin = config(plugin, agent, runtimeConfig=handed_over(**annotations))
        answer = await plugin(calls(plugin, agent, pod_netns.path), stdin)
    assert answer.status == 0, answer.stdout
    assert "15006" in rules(pod_netns)
    assert "tcp dport 99 " not in rules(pod_netns), "the API server's annotations say how"
    assert mismatch in agent.outcomes[-1].mismatch


async def test_invalid_annotations_in_either_source_fail_the_pod(
    plugin: Plugin, agent: Agent, pod_netns: Netns
) -> None:
    agent.pods.add(manifest(**{MODE: "NONE"}))
    async with agent.serving():
        stdin = config(plugin, agent, runtimeConfig=handed_over(**STATUS, **{PORTS: "x"}))
        answer = await plugin(calls(plugin, agent, pod_netns.path), stdin)
    assert (answer.status, answer.json["code"]) == (1, 7)


AGREE: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "never injected": (plain(), {"a": "b"}),
    "opted out": (manifest(**{INJECT: "false"}), STATUS | {INJECT: "false"}),
    "mode NONE": (manifest(**{MODE: "NONE"}), STATUS | {MODE: "NONE"}),
    "no sidecar, whatever the annotations": (
        plain() | {"spec": {"containers": [{"name": "app"}, {"name": "other"}]}}, STATUS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", AGREE)
async def test_a_pod_that_both_sources_exclude_passes(
    plugin: Plugin, agent: Agent, pod_netns: Netns, case: str
) -> None:
    known, annotations = AGREE[case]
    agent.pods.add(known)
    async with agent.serving():
        stdin = config(plugin, agent, runtimeConfig=handed_over(**annotations))
        answer = await plugin(calls(plugin, agent, pod_netns.path), stdin)
    assert answer.status == 0, answer.stdout
    assert rules(pod_netns) == ""
    assert agent.outcomes[-1].mismatch == ""


@pytest.mark.parametrize(
    ("known", "annotations"),
    [(plain(), STATUS), (manifest(), {}), (manifest(**{MODE: "NONE"}), STATUS), (manifest(**{PORTS: "*"}), STATUS)],
    ids=["injected now", "injected before", "mode NONE before", "other ports before"],
)
async def test_a_pod_without_a_uid_counts_only_if_it_agrees_with_the_runtime(
    plugin: Plugin, agent: Agent, pod_netns: Netns, known: dict[str, Any], annotations: dict[str, str]
) -> None:
    agent.pods.add(known)
    async with agent.serving():
        stdin = config(plugin, agent, runtimeConfig=said(annotations))
        answer = await plugin(calls(plugin, agent, pod_netns.path, CNI_ARGS=NO_UID), stdin)
        assert (answer.status, answer.json["code"]) == (1, 11), answer.stdout
        assert "K8S_POD_UID" in answer.json["msg"]
        assert rules(pod_netns) == ""
        now = manifest()
        now["metadata"]["annotations"] = annotations
        agent.pods.add(now)
        again = await plugin(calls(plugin, agent, pod_netns.path, CNI_ARGS=NO_UID), stdin)
    assert again.status == 0, again.stdout
    assert ("15006" in rules(pod_netns)) == bool(annotations)
