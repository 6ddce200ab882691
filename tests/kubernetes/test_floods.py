"""Events are few, whatever tenants have pods do: API server and etcd are everybody's (F37)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from installer.kube.client import ApiClient
from installer.kube.event_recorder import EventRecorder
from installer.kube.names import DAEMONSET
from installer.ratelimit.flood import ALL_EVENTS, EVENTS
from tests.kubernetes.conftest import events

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver

SUPPRESSED = re.compile(r" \((\d+) more like this one suppressed\)$")


def written(cluster: Cluster, namespace: str, node: str) -> list[str]:
    """Read the notes of the Events of a node's agent in a namespace."""
    found = cluster.admin.read(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
    return [each["note"] for each in found if each["reportingInstance"] == node]


def about(name: str, namespace: str) -> dict[str, str]:
    return {"apiVersion": "v1", "kind": "Pod", "name": name, "namespace": namespace, "uid": f"uid-of-{name}"}


async def test_an_event_names_as_much_of_a_long_node_name_as_the_api_allows(cluster: Cluster, kubeconfig: Path) -> None:
    node, api = "n" * 253, ApiClient(kubeconfig)
    try:
        assert await EventRecorder(api, DAEMONSET, node).record(about("long", "default"), "Why", "said", warning=True)
    finally:
        await api.close()
    assert written(cluster, "default", node[:128]) == ["said"]


async def test_events_of_one_namespace_do_not_suppress_those_of_another(
    cluster: Cluster, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, many, seconds = "flooded", 400, [1000.0]
    monkeypatch.setattr("installer.kube.event_recorder.time.monotonic", lambda: seconds[0])
    api = ApiClient(kubeconfig)
    told = EventRecorder(api, DAEMONSET, node)
    try:
        for number in range(many):
            await told.record(
                about(f"pod-{number}", "default"), "NotRedirected", f"\x1b[2J{number}" * 300, warning=True
            )
        assert len(written(cluster, "default", node)) <= EVENTS.burst + 1
        await told.record(about("innocent", "kube-system"), "NotRedirected", "why", warning=True)
        assert written(cluster, "kube-system", node) == ["why"]
        await told.record(about("pod-0", "default"), "Redirected", "another reason", warning=False)
        assert ("Redirected", "another reason") in events(cluster, "pod-0")
        seconds[0] += EVENTS.cooldown
        await told.record(about("later", "default"), "NotRedirected", "x" * 2000, warning=True)
        (note,) = [note for _, note in events(cluster, "later")]
        assert len(note) == 1024
        suppressed = SUPPRESSED.search(note)
        assert suppressed
        notes = [note for note in written(cluster, "default", node) if "another" not in note]
        assert int(suppressed[1]) + len(notes) == many + 1
    finally:
        await api.close()


async def test_long_note_of_wide_characters_is_accepted(cluster: Cluster, kubeconfig: Path) -> None:
    api = ApiClient(kubeconfig)
    try:
        wide = EventRecorder(api, DAEMONSET, "wide")
        assert await wide.record(about("wide", "default"), "InvalidSettings", "…@sha256:…" * 200, warning=True)
    finally:
        await api.close()
    ((_, note),) = events(cluster, "wide")
    assert 1020 <= len(note.encode()) <= 1024


async def test_events_of_all_namespaces_together_are_bounded(cluster: Cluster, kubeconfig: Path) -> None:
    api = ApiClient(kubeconfig)
    told = EventRecorder(api, DAEMONSET, "crowded")
    reasons, each = ("A", "B", "C", "D", "E", "F"), 55
    try:
        for number in range(each):
            for reason in reasons:
                await told.record(about(f"pod-{number}", "default"), reason, "why", warning=True)
    finally:
        await api.close()
    assert len(written(cluster, "default", "crowded")) < ALL_EVENTS.burst + 60
    assert len(reasons) * each > ALL_EVENTS.burst + 60
