"""kill -9 at each system call of install and uninstall: the directory always parses, the next run succeeds (F8)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from installer.cniconfig import conflist
from installer.host.files import is_temporary
from installer.host.uninstall import uninstall
from tests.support.ondisk import PLUGIN_BYTES, PRIMARY, SINGLE, NodeOnDisk
from tests.support.primary import content

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

ORIGINALS = {"10-primary.conflist": PRIMARY, "10-primary.conf": SINGLE}
REPOSITORY = Path(__file__).parents[2]


class Killable:
    """Runs an action in a child that is killed at the n-th call."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.killable"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, action: str, when: str, number: int, root: Path) -> bool:
        """Return whether it was killed, rather than finished before."""
        assert self._process.stdin
        assert self._process.stdout
        print(action, when, number, root, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline().strip()
        assert answer in ("killed", "done"), f"{action} killed {when} call {number}: {answer or 'the server has ended'}"
        return answer == "killed"

    def close(self) -> None:
        """End the server."""
        self._process.communicate()


@pytest.fixture(scope="module")
def killable() -> Iterator[Killable]:
    made = Killable()
    yield made
    made.close()


class Runtime:
    """Reads cniConfDir over and over, as a runtime that reloads whenever something changes."""

    def __init__(self, conf: Path) -> None:
        self._conf = conf
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self.wrong: list[str] = []
        self.reads = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._done.is_set():
            self.read()

    def read(self) -> None:
        """Check once: the first file must be the primary's network, with our plugin or without."""
        self.reads += 1
        names = sorted(path.name for path in self._conf.iterdir() if path.suffix in (".conflist", ".conf", ".json"))
        if not names:
            self.wrong.append("no configuration at all")
            return
        try:
            content = (self._conf / names[0]).read_bytes()
        except FileNotFoundError:
            return  # deleted since it was listed: the runtime is notified and lists again
        try:
            parsed = json.loads(content)
            plugins = parsed["plugins"] if names[0].endswith(".conflist") else [parsed]
            if parsed["name"] != "k8s" or plugins[0]["type"] != "bridge":
                self.wrong.append(f"{names[0]}: {content!r}")
        except (ValueError, KeyError, IndexError) as error:
            self.wrong.append(f"{names[0]}: {error!r}: {content!r}")


def fresh(root: Path, original: str) -> NodeOnDisk:
    shutil.rmtree(root, ignore_errors=True)
    node = NodeOnDisk.make(root)
    (node.conf / original).write_bytes(ORIGINALS[original])
    return node


def leftovers(node: NodeOnDisk) -> list[str]:
    return [path.name for folder in (node.bin, node.conf) for path in folder.iterdir() if is_temporary(path.name)]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("original", ORIGINALS)
def test_install_killed_at_each_step(killable: Killable, tmp_path: Path, original: str, when: str) -> None:
    expected = fresh(tmp_path / "expected", original)
    expected.install()
    kills = 0
    for number in range(1, 200):
        node = fresh(tmp_path / "expected", original)  # the same paths, so the same bytes
        with Runtime(node.conf) as runtime:
            killed = killable("install", when, number, node.root)
            runtime.read()
            if any(b"istio-cni" in content for content in node.files().values()):
                assert node.plugin.read_bytes() == PLUGIN_BYTES  # never an entry without its plugin
            node.install()
        assert runtime.wrong == [], f"killed {when} call {number}"
        assert node.plugin.read_bytes() == PLUGIN_BYTES
        assert node.plugin.stat().st_mode & 0o7777 == 0o755
        assert node.files().get("10-primary.conf", SINGLE) == SINGLE
        assert len(node.files()) == (2 if original.endswith(".conf") else 1)
        assert node.has_entry(next(iter(node.files())))
        assert leftovers(node) == []
        if not killed:
            break
        kills += 1
    assert 20 <= kills < 199


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("original", ORIGINALS)
def test_uninstall_killed_at_each_step(killable: Killable, tmp_path: Path, original: str, when: str) -> None:
    kills = 0
    for number in range(1, 200):
        node = fresh(tmp_path / "node", original)
        node.install()
        with Runtime(node.conf) as runtime:
            killed = killable("uninstall", when, number, node.root)
            runtime.read()
            if any(b"istio-cni" in content for content in node.files().values()):
                assert node.plugin.read_bytes() == PLUGIN_BYTES
            assert [done for done in uninstall(node.settings) if done.failed] == []
        assert runtime.wrong == [], f"killed {when} call {number}"
        assert node.files() == {original: ORIGINALS[original]}
        assert list(node.bin.iterdir()) == []
        assert leftovers(node) == []
        if not killed:
            break
        kills += 1
    assert 15 <= kills < 199


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("action", ["install", "uninstall"])
def test_a_symlink_stays_a_symlink_killed_at_each_step(
    killable: Killable, tmp_path: Path, action: str, when: str
) -> None:
    kills = 0
    for number in range(1, 200):
        node = fresh(tmp_path / "node", "10-primary.conflist")
        path = node.conf / "10-primary.conflist"
        path.rename(node.conf / "real")
        path.symlink_to("real")
        if action == "uninstall":
            node.install()
        with Runtime(node.conf) as runtime:
            killed = killable(action, when, number, node.root)
            runtime.read()
            assert path.readlink() == Path("real")
            node.install()
        assert runtime.wrong == [], f"killed {when} call {number}"
        assert path.readlink() == Path("real")
        assert conflist.remove(node.files()["real"]) == PRIMARY
        assert node.has_entry("real")
        assert leftovers(node) == []
        if not killed:
            break
        kills += 1
    assert 15 <= kills < 199


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("writes", [1, 2])
@pytest.mark.parametrize("action", ["install", "uninstall"])
def test_a_primarys_write_survives_a_kill_of_the_agent(
    killable: Killable, tmp_path: Path, action: str, writes: int, when: str
) -> None:
    """It renames new content over its file right before our exchange, and again before the exchange back (F33)."""
    raced = 0
    for number in range(1, 300):
        node = fresh(tmp_path / "node", "10-primary.conflist")
        if action == "uninstall":
            node.install()
        killed = killable(f"{action}+{writes}", when, number, node.root)
        written = node.root / "written"
        last = content(int(written.read_text()), "raced") if written.exists() else PRIMARY
        node.install()
        assert node.has_entry("10-primary.conflist")
        assert conflist.remove(node.files()["10-primary.conflist"]) == last, f"killed {when} call {number}"
        assert leftovers(node) == []
        raced += killed and last == content(writes, "raced")
        if not killed:
            break
    assert number < 299
    assert raced > 10


def test_the_checker_of_these_tests_detects_a_directory_that_does_not_parse(tmp_path: Path) -> None:
    node = fresh(tmp_path, "10-primary.conflist")
    runtime = Runtime(node.conf)
    (node.conf / "10-primary.conflist").write_bytes(PRIMARY[:40])
    runtime.read()
    (node.conf / "10-primary.conflist").unlink()
    runtime.read()
    assert len(runtime.wrong) == 2
