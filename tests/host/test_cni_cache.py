"""libcni's results of thousands of pods cost nothing while nothing changes, whether they parse or not (F37)."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path, PosixPath
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from installer.host import cni_cache, unanswered
from installer.host.cni_cache import Sandboxes
from tests.support.hung import hung
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.kernel

GOOD, BAD = 300, 300


class CountedPath(PosixPath):
    """A path that counts the accesses to its files."""

    looked_at: int = 0

    def lstat(self) -> os.stat_result:
        CountedPath.looked_at += 1
        return super().lstat()


def kept(number: int, *, is_good: bool = True) -> str:
    """Write a result as libcni saves Calico's: no interface has a sandbox."""
    of = {"K8S_POD_NAMESPACE": "shop", "K8S_POD_NAME": f"cart-{number}", "K8S_POD_UID": f"uid-{number}"}
    ip = {"version": "4", "address": f"10.1.{number // 256}.{number % 256}/32"}
    result = {"cniVersion": "0.3.1", "interfaces": [{"name": f"cali{number}"}], "ips": [ip]}
    made = {"containerId": str(number), "ifName": "eth0", "cniArgs": [*of.items()], "result": result}
    return json.dumps({"kind": "cniCacheV1"} | made if is_good else made)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Many old results, as on a node that was never drained."""
    monkeypatch.setattr(cni_cache, "FRESH", 0.0)
    monkeypatch.setattr(cni_cache, "CLOCK", 0.0)
    folder = tmp_path / "results"
    folder.mkdir()
    for number in range(GOOD + BAD):
        (folder / f"k8s-{number}-eth0").write_text(kept(number, is_good=number < GOOD))
    os.utime(folder, (1, 1))
    return folder


def test_a_file_is_read_once_while_the_directory_is_unchanged(results: Path) -> None:
    found = Sandboxes(CountedPath(results.parent))
    found.read()
    first = found.read()
    assert (len(first), len(found.unreadable)) == (GOOD, BAD)
    CountedPath.looked_at = 0
    for _ in range(50):
        assert found.read() is first
    assert CountedPath.looked_at == 0


def test_added_changed_and_deleted_files_are_noticed(results: Path) -> None:
    found = Sandboxes(results.parent)
    found.read()
    first = found.read()
    (results / "k8s-new-eth0").write_text(kept(1000))
    assert {*found.read()} - {*first} == {each for each in found.read() if each.name == "cart-1000"}
    (results / f"k8s-{GOOD}-eth0").unlink()  # one that did not parse
    (results / f"k8s-{GOOD + 1}-eth0.tmp").write_text(kept(GOOD + 1))
    (results / f"k8s-{GOOD + 1}-eth0.tmp").rename(results / f"k8s-{GOOD + 1}-eth0")
    assert len(found.read()) == GOOD + 2
    assert len(found.unreadable) == BAD - 2
    for each in [*results.iterdir()]:
        each.unlink()
    assert (found.read(), found.unreadable) == ((), [])
    results.rmdir()
    assert found.read() == ()


def test_a_file_still_being_written_is_read_again_without_a_warning(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Sandboxes(results.parent)
    for _ in range(2):
        found.read()
    monkeypatch.setattr(cni_cache, "FRESH", 10.0)
    monkeypatch.setattr(cni_cache, "CLOCK", 5.0)
    file = results / "k8s-late-eth0"
    file.write_text(kept(1000)[:40])
    found.read()
    os.utime(results, (1, 1))
    found.read()
    assert len(found.unreadable) == BAD
    file.write_text(kept(1000))  # in place: the directory's mtime stays
    assert "cart-1000" in {each.name for each in found.read()}
    assert len(found.unreadable) == BAD


def test_the_folder_is_named_by_its_path_on_the_node(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Sandboxes(Path("/var/lib/cni"), results.parent)
    for _ in range(2):
        found.read()
    assert found.unreadable[0].startswith("/var/lib/cni/results/k8s-")
    monkeypatch.setattr(unanswered, "PATIENCE", 0.0)
    watcher = found.watcher(lambda _: None)
    for call in (found.read, watcher.refresh):
        thread = Thread(target=_until_an_error, args=(call,))
        with hung(results):
            thread.start()
            until(
                lambda: unanswered.unanswered().startswith("/var/lib/cni/results: its file system has not answered"),
                10,
                "it is named",
            )
        thread.join()
    watcher.close()


def _until_an_error(call: Callable[[], object]) -> None:
    with suppress(OSError):
        call()
