"""Pods from a folder of manifests: changes apply at once, and an invalid file affects no other."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from installer.pods.folder import ManifestPods
from plugin.pod import PodsUnavailable
from tests.support.wait import eventually

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.pure

SOON = 15.0  # seconds: much longer than it takes


def manifest(name: str, **metadata: str) -> str:
    """A pod of namespace shop."""
    lines = [f"  {key}: {value}" for key, value in {"name": name, "namespace": "shop", **metadata}.items()]
    return "\n".join(["apiVersion: v1", "kind: Pod", "metadata:", *lines, "spec:", "  containers: [{name: app}]", ""])


async def names(pods: ManifestPods, *wanted: str) -> list[str]:
    """Return the names of the found pods of namespace shop."""
    return [name for name in wanted if await pods.find("shop", name, None)]


async def test_several_documents_lists_and_json_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"---\n{manifest('one')}---\n{manifest('two')}---\n")
    items = [{"kind": "Pod", "metadata": {"name": "three", "namespace": "shop"}, "spec": {"containers": []}}]
    (tmp_path / "b.json").write_text(json.dumps({"kind": "List", "items": items}, indent="\t"))
    (tmp_path / "c.txt").write_text("kind: Pod")
    pods = ManifestPods(tmp_path)
    assert await names(pods, "one", "two", "three", "four") == ["one", "two", "three"]
    assert pods.count == 3
    assert await pods.find("default", "one", None) is None, "found in another namespace"


async def test_each_answer_reflects_the_latest_change(tmp_path: Path) -> None:
    file = tmp_path / "pods.yaml"
    file.write_text(manifest("first"))
    pods = ManifestPods(tmp_path)
    assert await names(pods, "first", "third") == ["first"]
    for _ in range(20):  # the same length, the same inode, within the same tick of the clock
        file.write_text(manifest("third"))
        assert await names(pods, "first", "third") == ["third"]
        file.write_text(manifest("first"))
        assert await names(pods, "first", "third") == ["first"]
    file.unlink()
    assert await names(pods, "first", "third") == []


async def test_a_pod_is_found_where_its_manifest_is_now(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.yaml").write_text(manifest(f"pod{number}"))
    pods = ManifestPods(tmp_path)
    assert await names(pods, "pod0", "pod1", "pod2") == ["pod0", "pod1", "pod2"]
    (tmp_path / "1.yaml").rename(tmp_path / "9.yaml")
    (tmp_path / "0.yaml").write_text(manifest("pod2"))
    (tmp_path / "2.yaml").write_text(manifest("pod0"))
    assert await names(pods, "pod0", "pod1", "pod2") == ["pod0", "pod1", "pod2"]
    (tmp_path / "9.yaml").unlink()
    assert await names(pods, "pod0", "pod1", "pod2") == ["pod0", "pod2"]


async def test_a_manifest_without_a_uid_matches_any_pod_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(manifest("any"))
    (tmp_path / "b.yaml").write_text(manifest("one", uid="u-1"))
    pods = ManifestPods(tmp_path)
    assert await pods.find("shop", "any", "whatever")
    assert await pods.find("shop", "one", "u-1")
    assert await pods.find("shop", "one", "u-2") is None


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("bad.yaml", "kind: Pod\nmetadata: {name: [}\n", "line 2: "),
        ("bad.yaml", "kind: Pod\nmetadata:\n  name: x\n---\n\nsort: Pod\n", "line 6: saw kind None, expected Pod"),
        ("bad.yaml", "just text", "line 1: saw kind 'just text', expected Pod"),
        (
            "bad.yaml",
            "kind: Job\nmetadata:\n  name: x\nspec:\n  template:\n    spec:\n      containers:\n      - just text\n",
            "line 8: spec.template.spec.containers[0]: saw 'just text', expected a mapping",
        ),
        (
            "bad.yaml",
            "kind: Deployment\nmetadata: {name: x}\nspec:\n  replicas: 1\n",
            "line 4: spec.template: saw None",
        ),
        (
            "bad.yaml",
            f"{manifest('good')}---\nkind: Pod\nmetadata:\n  name: x\n  annotations:\n    yes-or-no: true\n",
            "line 13: metadata.annotations.yes-or-no: saw True, expected a string",
        ),
        (
            "bad.yaml",
            "kind: Pod\nmetadata: {name: x}\nspec:\n  containers:\n  - name: a\n  - ports:\n    - containerPort: 99999\n",
            "line 7: spec.containers[1].ports[0].containerPort: saw 99999, expected 1 to 65535",
        ),
        ("bad.yaml", "kind: Pod\nmetadata:\n  namespace: x\n", "line 3: metadata.name: missing"),
        ("bad.json", '{"kind": "Pod",\n "metadata": }', "line 2: Expecting value, expected JSON"),
        ("bad.yaml", "[" * 5000, ""),
        ("bad.yaml", "\x00", ""),
        ("bad.yaml", "x" * (1 << 20) + "x", "saw 1048577 bytes, expected at most 1048576"),
    ],
)
async def test_an_invalid_file_is_reported_once_with_its_line_and_affects_no_other(
    tmp_path: Path, name: str, text: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.yaml").write_text(manifest("before"))
    (tmp_path / "z.yaml").write_text(manifest("after"))
    (tmp_path / name).write_text(text)
    pods = ManifestPods(tmp_path)
    assert await names(pods, "before", "after") == ["before", "after"]
    assert pods.known
    with pytest.raises(PodsUnavailable, match="it may be in a file that cannot be read: ") as caught:
        await pods.find("shop", "not-there", None)
    assert f"{tmp_path / name}: " in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [record.message for record in caplog.records] == ["skipped: no manifests of pods"]
    (tmp_path / name).unlink()
    assert await pods.find("shop", "not-there", None) is None


TEMPLATE: dict[str, Any] = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "app"}]}}
MAKERS: dict[str, dict[str, Any]] = {
    **{
        kind: {"spec": {"template": TEMPLATE}}
        for kind in ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "ReplicationController")
    },
    "CronJob": {"spec": {"jobTemplate": {"spec": {"template": TEMPLATE}}}},
    "PodTemplate": {"template": TEMPLATE},
}


@pytest.mark.parametrize("kind", MAKERS)
async def test_a_template_matches_pods_whose_names_begin_with_its_own(tmp_path: Path, kind: str) -> None:
    maker = {"kind": kind, "metadata": {"name": "web", "namespace": "shop"}} | MAKERS[kind]
    (tmp_path / "a.json").write_text(json.dumps({"kind": "List", "items": [maker, {"kind": "Service"}]}))
    pods = ManifestPods(tmp_path)
    assert await names(pods, "web-7d4b9c-x2x4z", "web-0", "web", "webs-0") == ["web-7d4b9c-x2x4z", "web-0"]
    assert await pods.find("other", "web-0", None) is None


async def test_a_pod_comes_before_a_template_and_the_longer_name_before_the_shorter(tmp_path: Path) -> None:
    for number, (kind, name) in enumerate([("Job", "web"), ("Job", "web-api"), ("Pod", "web-api-1")]):
        rest: dict[str, Any] = {"spec": {"containers": []}} if kind == "Pod" else MAKERS[kind]
        made = {"kind": kind, "metadata": {"name": name, "namespace": "shop"}} | rest
        (tmp_path / f"{number}.json").write_text(json.dumps(made))
    pods = ManifestPods(tmp_path)
    found = [await pods.find("shop", name, None) for name in ("web-api-1", "web-api-2", "web-x")]
    assert [pod and pod.name for pod in found] == ["web-api-1", "web-api", "web"]


async def test_anything_but_a_file_is_skipped(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "dangling.yaml").symlink_to(tmp_path / "nothing")
    (tmp_path / "a.yaml").write_text(manifest("only"))
    assert await names(ManifestPods(tmp_path), "only", "other") == ["only"]


async def test_a_missing_folder_is_awaited(tmp_path: Path) -> None:
    folder = tmp_path / "pods"
    pods, stop = ManifestPods(folder), asyncio.Event()
    running = asyncio.create_task(pods.run(stop))
    try:
        await eventually(lambda: str(folder) in pods.reason, SOON, "it names the folder")
        assert not pods.known
        with pytest.raises(PodsUnavailable, match="No such file or directory"):
            await pods.find("shop", "any", None)
        folder.mkdir()
        await eventually(lambda: pods.known, SOON, "the folder is there")
        assert pods.count == 0
        (folder / "a.yaml").write_text(manifest("first"))
        await eventually(lambda: pods.count == 1, SOON, "the pod is counted without being asked for")
    finally:
        stop.set()
        await running
