"""kill -9 at each system call of install and uninstall: the directory always parses, the next run succeeds (F8)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from installer.cniconfig import conflist
from installer.host.files import is_temporary
from installer.host.uninstall import uninstall
from tests.support.killable import each_call
from tests.support.ondisk import PLUGIN_BYTES, PRIMARY, SINGLE, NodeOnDisk
from tests.support.primary import content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

ORIGINALS = {"10-primary.conflist": PRIMARY, "10-primary.conf": SINGLE}
REPOSITORY = Path(__file__).parents[2]
MOST_CALLS = 300


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
    """Reads cniConfDir, as a runtime that reloads whenever something changes."""

    def __init__(self, conf: Path) -> None:
        self._conf = conf
        self.wrong: list[str] = []
        self.reads = 0

    def __enter__(self) -> Self:
        self._watching = each_call(self._seen)
        self._watching.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._watching.__exit__(None, None, None)

    def _seen(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Read after each call of this process that may change the directory."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            try:
                return call(*args, **kwargs)
            finally:
                self.read()

        return wrapped

    def read(self) -> None:
        """Check once: the first file must be the primary's network, with our plugin or without."""
        self.reads += 1
        names = sorted(path.name for path in self._conf.iterdir() if path.suffix in (".conflist", ".conf", ".json"))
        if not names:
            self.wrong.append("no configuration at all")
            return
        content = (self._conf / names[0]).read_bytes()
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


@dataclass
class Killed:
    """One run of an action, after it: on which node, whether it was killed rather than finished before, and who reads on."""

    node: NodeOnDisk
    killed: bool
    runtime: Runtime


def at_each_call(
    killable: Killable, action: str, when: str, prepare: Callable[[], NodeOnDisk], *, at_least: int
) -> Iterator[Killed]:
    """Kill an action at its first call, at its second, and so on until it finishes, each time on a node of its own.

    As each call is the last one once, a runtime sees here all states in which it could find the directory meanwhile.
    """
    for number in range(1, MOST_CALLS):
        node = prepare()
        killed = killable(action, when, number, node.root)
        runtime = Runtime(node.conf)
        runtime.read()
        yield Killed(node, killed, runtime)
        assert runtime.reads > 1, "nothing was done about it"
        assert runtime.wrong == [], f"killed {when} call {number}"
        assert leftovers(node) == [], f"killed {when} call {number}"
        if not killed:
            assert number > at_least
            return
    raise AssertionError(f"{action} made {MOST_CALLS} calls, expected an end")


def has_its_plugin(node: NodeOnDisk) -> bool:
    """Tell whether the directory has no entry of ours, or the plugin that it names is whole."""
    entries = any(b"istio-cni" in content for content in node.files().values())
    return not entries or node.plugin.read_bytes() == PLUGIN_BYTES


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("original", ORIGINALS)
def test_install_killed_at_each_step(killable: Killable, tmp_path: Path, original: str, when: str) -> None:
    for run in at_each_call(killable, "install", when, lambda: fresh(tmp_path / "node", original), at_least=20):
        node = run.node
        assert has_its_plugin(node)
        with run.runtime:
            node.install()
        assert node.plugin.read_bytes() == PLUGIN_BYTES
        assert node.plugin.stat().st_mode & 0o7777 == 0o755
        assert node.files().get("10-primary.conf", SINGLE) == SINGLE
        assert len(node.files()) == (2 if original.endswith(".conf") else 1)
        assert node.has_entry(next(iter(node.files())))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("original", ORIGINALS)
def test_uninstall_killed_at_each_step(killable: Killable, tmp_path: Path, original: str, when: str) -> None:
    def prepare() -> NodeOnDisk:
        node = fresh(tmp_path / "node", original)
        node.install()
        return node

    for run in at_each_call(killable, "uninstall", when, prepare, at_least=15):
        node = run.node
        assert has_its_plugin(node)
        with run.runtime:
            assert [done for done in uninstall(node.settings) if done.failed] == []
        assert node.files() == {original: ORIGINALS[original]}
        assert list(node.bin.iterdir()) == []


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("action", ["install", "uninstall"])
def test_a_symlink_stays_a_symlink_killed_at_each_step(
    killable: Killable, tmp_path: Path, action: str, when: str
) -> None:
    def prepare() -> NodeOnDisk:
        node = fresh(tmp_path / "node", "10-primary.conflist")
        path = node.conf / "10-primary.conflist"
        path.rename(node.conf / "real")
        path.symlink_to("real")
        if action == "uninstall":
            node.install()
        return node

    for run in at_each_call(killable, action, when, prepare, at_least=15):
        node, path = run.node, run.node.conf / "10-primary.conflist"
        assert path.readlink() == Path("real")
        with run.runtime:
            node.install()
        assert path.readlink() == Path("real")
        assert conflist.remove(node.files()["real"]) == PRIMARY
        assert node.has_entry("real")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("writes", [1, 2])
@pytest.mark.parametrize("action", ["install", "uninstall"])
def test_a_primarys_write_survives_a_kill_of_the_agent(
    killable: Killable, tmp_path: Path, action: str, writes: int, when: str
) -> None:
    """It renames new content over its file right before our exchange, and again before the exchange back (F33)."""

    def prepare() -> NodeOnDisk:
        node = fresh(tmp_path / "node", "10-primary.conflist")
        if action == "uninstall":
            node.install()
        return node

    raced = 0
    for run in at_each_call(killable, f"{action}+{writes}", when, prepare, at_least=10):
        node, written = run.node, run.node.root / "written"
        last = content(int(written.read_text()), "raced") if written.exists() else PRIMARY
        with run.runtime:
            node.install()
        assert node.has_entry("10-primary.conflist")
        assert conflist.remove(node.files()["10-primary.conflist"]) == last
        raced += run.killed and last == content(writes, "raced")
    assert raced > 10


def test_the_checker_of_these_tests_detects_a_directory_that_does_not_parse(tmp_path: Path) -> None:
    node = fresh(tmp_path, "10-primary.conflist")
    runtime = Runtime(node.conf)
    (node.conf / "10-primary.conflist").write_bytes(PRIMARY[:40])
    runtime.read()
    (node.conf / "10-primary.conflist").unlink()
    runtime.read()
    assert len(runtime.wrong) == 2
