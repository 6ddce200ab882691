"""The reconciler notices what others do to the node, and repairs it (F9, F10)."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING

import pytest

from installer.agent import repairs
from installer.config.desired import DesiredState
from installer.ratelimit.limiter import REPAIRS
from tests.support.ondisk import PLUGIN_BYTES, PRIMARY, NodeOnDisk, Running, replace_file, running
from tests.support.wait import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from installer.fleet.state import NodeState

pytestmark = pytest.mark.kernel

OF_ISTIO = PRIMARY.replace(
    b'{"type":"portmap"}',
    b'{"type":"portmap"}, {"type": "istio-cni", "plugin_log_level": "info", "cni_agent_run_dir": "/var/run/istio-cni"}',
)  # as Istio 1.26 writes it


def installed(state: NodeState) -> bool:
    return state.installed


def repaired(times: int) -> Callable[[NodeState], bool]:
    return lambda state: state.installed and state.repairs == times


def in_place(path: Path) -> None:
    path.write_bytes(PRIMARY)


def by_rename(path: Path) -> None:
    replace_file(path, PRIMARY)


def moved_in(path: Path) -> None:
    outside = path.parent.parent / "outside"
    outside.write_bytes(PRIMARY)
    outside.replace(path)


def renamed_away_and_written(path: Path) -> None:
    path.rename(path.with_name("10-primary.conflist.cilium_bak"))
    path.write_bytes(PRIMARY)


def moved_out_and_written(path: Path) -> None:
    path.rename(path.parent.parent / "outside")
    path.write_bytes(PRIMARY)


def linked(path: Path) -> None:
    outside = path.parent.parent / "outside"
    outside.write_bytes(PRIMARY)
    path.unlink()
    path.hardlink_to(outside)


def linked_symbolically(path: Path) -> None:
    target = path.with_name("primary")
    target.write_bytes(PRIMARY)
    path.unlink()
    path.symlink_to(target)


@pytest.mark.parametrize(
    "stomp",
    [in_place, by_rename, moved_in, renamed_away_and_written, moved_out_and_written, linked, linked_symbolically],
)
async def test_a_conflist_that_others_overwrite_is_repaired(node: NodeOnDisk, stomp: Callable[[Path], None]) -> None:
    async with running(node.settings) as run:
        await run.until(installed)
        for times in range(1, 4):
            stomp(node.conf / "10-primary.conflist")
            state = await run.until(repaired(times))
            assert node.has_entry("10-primary.conflist")
        assert state.last_repair is not None


async def test_an_entry_that_others_change_duplicate_or_move_is_repaired(node: NodeOnDisk) -> None:
    path = node.conf / "10-primary.conflist"
    async with running(node.settings) as run:
        await run.until(installed)
        right = path.read_bytes()
        ours = right[right.index(b'{"agentSocket"') : right.rindex(b"]")]
        for times, wrong in enumerate(
            (
                right.replace(b'"warn"', b'"debug"'),
                right.replace(ours, ours + b", " + ours),
                right.replace(b'{"type": "bridge"', ours + b', {"type": "bridge"'),
            ),
            1,
        ):
            assert wrong != right
            path.write_bytes(wrong)
            await run.until(repaired(times))
            assert node.has_entry("10-primary.conflist")


async def test_a_plugin_file_that_is_overwritten_or_deleted_is_repaired(node: NodeOnDisk) -> None:
    async with running(node.settings) as run:
        await run.until(installed)
        node.plugin.write_bytes(b"overwritten")
        await run.until(repaired(1))
        node.plugin.unlink()
        await run.until(repaired(2))
        node.plugin.chmod(0o644)
        await run.until(repaired(3))
        assert node.plugin.read_bytes() == PLUGIN_BYTES
        assert node.plugin.stat().st_mode & 0o7777 == 0o755


async def test_it_waits_for_a_first_conflist_and_then_for_one_that_parses(tmp_path: Path) -> None:
    node = NodeOnDisk.make(tmp_path)
    async with running(node.settings) as run:
        state = await run.until(lambda state: "saw none" in (state.reason or ""))
        assert not state.installed
        (node.conf / "10-primary.conflist").write_bytes(PRIMARY[:50])
        await run.until(lambda state: len(state.skipped) == 1)
        (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
        state = await run.until(installed)
        assert (state.skipped, state.repairs) == ((), 0)


async def test_the_entry_moves_to_a_new_first_file(node: NodeOnDisk) -> None:
    async with running(node.settings) as run:
        await run.until(installed)
        replace_file(node.conf / "05-new.conflist", PRIMARY)
        await run.until(lambda state: state.conflist == "05-new.conflist")
        assert node.files()["10-primary.conflist"] == PRIMARY
        (node.conf / "05-new.conflist").unlink()
        await run.until(lambda state: state.conflist == "10-primary.conflist")


async def test_it_waits_for_directories_at_any_depth(tmp_path: Path) -> None:
    node = NodeOnDisk.make(tmp_path, cni_conf_dir=str(tmp_path / "etc" / "cni" / "net.d"))
    async with running(node.settings) as run:
        state = await run.until(lambda state: "net.d: No such file" in (state.reason or ""))
        assert not state.installed
        node.conf.mkdir(parents=True)
        (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
        await run.until(installed)


async def test_replaced_directories_are_watched_again(node: NodeOnDisk) -> None:
    async with running(node.settings) as run:
        await run.until(installed)
        node.conf.rename(node.root / "old")
        await run.until(lambda state: not state.installed)
        node.conf.mkdir()
        (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
        await run.until(repaired(1))
        (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
        await run.until(repaired(2))
        node.bin.rename(node.root / "old-bin")
        await run.until(lambda state: not state.installed)
        node.bin.mkdir()
        await run.until(repaired(3))


async def test_the_entry_is_written_as_soon_as_the_agent_serves(node: NodeOnDisk) -> None:
    serving = asyncio.Event()
    async with running(node.settings, serving.is_set) as run:
        await run.until(lambda state: "does not serve" in (state.reason or ""))
        assert node.files() == {"10-primary.conflist": PRIMARY}
        serving.set()
        run.reconciler.wake()
        await run.until(installed)


@pytest.fixture
def slow_repairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have repairs beyond the burst wait at any rate: a busy machine may make fewer than those a second that never do."""
    monkeypatch.setattr(repairs, "REPAIRS", REPAIRS._replace(sustained=0.0))


async def until_conflict(run: Running, undo: Callable[[], object]) -> str:
    """Undo the installation over and over until that is a conflict, and return what is said of it."""

    def undone() -> bool:
        undo()
        return run.states[-1].conflict

    await eventually(undone, 60, "the conflict is reported")
    return run.states[-1].reason or ""


def overwrite(path: Path) -> None:
    """Undo the installation once, if it is there; at once: a half-written file would be another reason not to be installed."""
    if b"istio-cni" in path.read_bytes():
        replace_file(path, PRIMARY)


@pytest.mark.slow
@pytest.mark.usefixtures("slow_repairs")
async def test_a_conflict_is_reported_as_one_uninterrupted_state(node: NodeOnDisk) -> None:  # F9
    path = node.conf / "10-primary.conflist"
    async with running(node.settings) as run:
        await run.until(installed)
        began, told = time.monotonic(), len(run.states)
        while time.monotonic() < began + 2 or not run.states[-1].conflict:
            overwrite(path)
            await asyncio.sleep(0.001)
        state = run.states[-1]
        assert state.conflict
        assert not state.installed
        assert (state.reason or "").startswith(
            f"{path}: another program keeps undoing the installation: it writes the file without the plugin's entry"
        )
        assert state.repairs <= 20  # the burst, and what has waited
        await run.until(installed)
        assert time.monotonic() - began > REPAIRS.cooldown
        assert node.has_entry(path.name)
        turns = [(state.installed, state.reason) for state in run.states[told - 1 :]]
        assert [turn for turn, _ in itertools.groupby(turns)] == [(True, None), (False, state.reason), (True, None)]


async def test_each_write_of_a_conflict_is_repaired_in_the_end(node: NodeOnDisk) -> None:
    path = node.conf / "10-primary.conflist"
    async with running(node.settings) as run:
        await run.until(installed)
        for _ in range(14):
            overwrite(path)
            await eventually(lambda: b"istio-cni" in path.read_bytes(), 20, "the repair")


@pytest.mark.parametrize(
    ("undo", "doing"),
    [
        (
            lambda content: content.replace(b'"warn"', b'"debug"'),
            "it changes the plugin's entry, or adds plugins behind it",
        ),
        (lambda _: PRIMARY, "it writes the file without the plugin's entry"),
        (lambda _: OF_ISTIO, "it replaces the plugin's entry with that of Istio's own CNI node agent: uninstall one"),
    ],
)
@pytest.mark.usefixtures("slow_repairs")
async def test_a_conflict_names_what_the_other_program_does(
    node: NodeOnDisk, undo: Callable[[bytes], bytes], doing: str
) -> None:
    path = node.conf / "10-primary.conflist"
    async with running(node.settings) as run:
        await run.until(installed)
        right = path.read_bytes()
        reason = await until_conflict(
            run, lambda: replace_file(path, undo(right)) if path.read_bytes() == right else None
        )
        assert doing in reason


@pytest.mark.parametrize(
    ("undo", "doing"),
    [
        (lambda path: path.unlink(missing_ok=True), "it deletes the file"),
        (lambda path: replace_file(path, b"other"), "it changes the file or its permissions"),
        (
            lambda path: replace_file(path, b"\x7fELF" + b"." * ((1 << 20) - 12) + b"istio.io/istio/cni/cmd/istio-cni"),
            "it replaces the file with that of Istio's own CNI node agent: uninstall one",
        ),
    ],
)
@pytest.mark.usefixtures("slow_repairs")
async def test_a_conflict_over_the_plugin_file_is_reported(
    node: NodeOnDisk, undo: Callable[[Path], None], doing: str
) -> None:
    async with running(node.settings) as run:
        await run.until(installed)
        reason = await until_conflict(run, lambda: undo(node.plugin))
        assert reason.startswith(f"{node.plugin}: another program keeps undoing")
        assert doing in reason


@pytest.mark.usefixtures("slow_repairs")
async def test_a_node_with_nothing_to_install_has_no_conflict(node: NodeOnDisk) -> None:
    now = [DesiredState(node.settings)]
    path = node.conf / "10-primary.conflist"
    async with running(lambda: now[0]) as run:
        await run.until(installed)
        await until_conflict(run, lambda: overwrite(path))
        now[0] = DesiredState(node.settings, installed=False, reason="enabled: false")
        run.reconciler.wake()
        state = await run.until(lambda state: state.removed)
        assert not state.conflict
        assert path.read_bytes() == PRIMARY


async def test_the_installation_stays_when_the_agent_stops(node: NodeOnDisk) -> None:
    async with running(node.settings) as run:
        await run.until(installed)
    assert node.has_entry("10-primary.conflist")
    assert node.plugin.exists()


async def test_another_meshs_plugin_in_the_chain_is_logged_once(
    node: NodeOnDisk, caplog: pytest.LogCaptureFixture
) -> None:
    path = node.conf / "10-primary.conflist"
    path.write_bytes(PRIMARY.replace(b'{"type":"portmap"}', b'{"type":"portmap"}, {"type": "linkerd-cni"}'))
    async with running(node.settings) as run:
        state = await run.until(installed)
        assert state.meshes == ("linkerd-cni",)
        run.reconciler.wake()
        path.write_bytes(PRIMARY)
        await run.until(lambda state: not state.meshes)
    said = [record for record in caplog.records if record.getMessage() == "another mesh's plugin is in the same chain"]
    assert [record.__dict__["plugins"] for record in said] == ["linkerd-cni (Linkerd)"]
