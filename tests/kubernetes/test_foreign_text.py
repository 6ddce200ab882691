"""Texts of others in what agents write: any character, in files' names too, and what is none (F32)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from installer.kube.client import ApiClient
from installer.kube.event_recorder import EventRecorder
from installer.kube.names import DAEMONSET
from tests.kubernetes.conftest import SOON, events, ready, report
from tests.support.wait import until

if TYPE_CHECKING:
    from tests.kubernetes.conftest import Node
    from tests.support.agent import AgentProcess
    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver

OF_YAML = "{a: b} #c - & * ! | > ' \" % @ ` \\ \\u0041 \t"
TEXTS = {
    "within the basic plane": ("café ℵ \x7f \x80 \x85 \xa0 \u2028 \u2029 \ufeff \ufffe \uffff", None),
    "beyond it": ("😀 \U0010ffff", None),
    "of YAML": (OF_YAML, None),
    "control characters": ("".join(map(chr, range(1, 32))), None),
    "no character": ("10-\udcff.conf", "10-\ufffd.conf"),
    "half of one": ("\ud83d", "\ufffd"),
}


@pytest.mark.parametrize(("text", "seen"), TEXTS.values(), ids=TEXTS)
async def test_each_way_of_writing_keeps_the_text(cluster: Cluster, text: str, seen: str | None) -> None:
    api, path = ApiClient(cluster.folder / "admin.kubeconfig"), "/api/v1/namespaces/default/configmaps"
    written: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "text"},
        "data": {"of": text},
    }
    try:
        assert (await api.create(path, written))["data"]["of"] == (seen or text)
        written["data"] = {"of": text, "more": text}
        assert (await api.apply(f"{path}/text", written))["data"]["more"] == (seen or text)
        assert (await api.merge(f"{path}/text", {"data": {"last": text}}))["data"]["last"] == (seen or text)
        events = EventRecorder(api, DAEMONSET, "node1")
        about = {"apiVersion": "v1", "kind": "ConfigMap", "namespace": "default", "name": "text", "uid": ascii(text)}
        assert await events.record(about, "Tested", text * 300, warning=False)
    finally:
        cluster.admin.delete(f"{path}/text")
        await api.close()


@pytest.mark.parametrize("name", ["20-\U0001f600.conf".encode(), b"20-\xff.conf"])
def test_a_node_with_such_a_file_is_reported(cluster: Cluster, node: Node, running: AgentProcess, name: bytes) -> None:
    until(lambda: ready(cluster, node) == ("True", "Redirecting"), SOON, "it is ready")
    path = running.conf_dir / os.fsdecode(name)
    path.write_bytes(b"{")
    until(lambda: ready(cluster, node) == ("True", "InvalidConflist"), SOON, "the file is reported")
    shown = name.decode(errors="replace").replace("\ufffd", "?")
    said = report(cluster, node)["conditions"][0]["message"].replace("\ufffd", "?")
    assert f"/{shown} is no valid network configuration" in said
    until(lambda: "InvalidConflist" in dict(events(cluster, node.name)), SOON, "and is an Event")
    path.unlink()
    until(lambda: ready(cluster, node) == ("True", "Redirecting"), SOON, "the agent goes on")
    assert running.process
    assert running.process.poll() is None
