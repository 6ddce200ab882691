"""Replacing files that others write too: each race by itself, and less capable file systems (F33)."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from installer.agent import conflist_entry
from installer.cniconfig import conflist
from installer.cniconfig.plan import Delete, Write
from installer.host import conf_dir, exchange
from installer.host.directory import Directory
from installer.host.exchange import BusyError, OutdatedError
from tests.support.ondisk import PRIMARY, NodeOnDisk, names, replace_file, running
from tests.support.wait import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.kernel

REPOSITORY = Path(__file__).parents[2]
LATEST = PRIMARY.replace(b"1400", b"9000")


def when_names_change(monkeypatch: pytest.MonkeyPatch, *acts: tuple[str, Callable[[], object]]) -> None:
    """Run an action right before or after the n-th call of renameat2."""
    call, left = exchange.renameat2, list(acts)

    def raced(*args: Any) -> None:
        when, act = left.pop(0) if left else ("", lambda: None)
        if when == "before":
            act()
        call(*args)
        if when == "after":
            act()

    monkeypatch.setattr(exchange, "renameat2", raced)


def test_an_unexpected_file_is_exchanged_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.conflist"
    path.write_bytes(b"planned upon")
    when_names_change(monkeypatch, ("before", lambda: replace_file(path, b"newer")))
    with Directory(tmp_path) as folder, pytest.raises(OutdatedError):
        exchange.write(folder, path.name, b"ours", b"planned upon", None)
    assert path.read_bytes() == b"newer"
    assert names(tmp_path) == ["a.conflist"]


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_file_renamed_into_place_before_the_exchange_back_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    path = tmp_path / "a.conflist"
    path.write_bytes(b"planned upon")
    written = iter(range(100))
    write = ("before", lambda: replace_file(path, b"newer %d" % next(written)))
    when_names_change(monkeypatch, *([write] * (times + 1)))
    with Directory(tmp_path) as folder, pytest.raises(OutdatedError):
        exchange.write(folder, path.name, b"ours", b"planned upon", None)
    assert path.read_bytes() == b"newer %d" % times
    assert names(tmp_path) == ["a.conflist"]


def test_a_write_into_our_file_before_the_exchange_back_survives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.conflist"
    path.write_bytes(b"planned upon")
    when_names_change(
        monkeypatch,
        ("before", lambda: replace_file(path, b"newer")),
        ("before", lambda: path.write_bytes(b"newest")),
    )
    with Directory(tmp_path) as folder, pytest.raises(OutdatedError):
        exchange.write(folder, path.name, b"ours", b"planned upon", None)
    assert path.read_bytes() == b"newest"
    assert names(tmp_path) == ["a.conflist"]


@pytest.mark.parametrize("deleting", [False, True])
def test_a_writer_that_opens_the_old_file_during_the_exchange_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deleting: bool
) -> None:
    """A second name simulates the moment when the kernel has found the file but not opened it yet."""
    path, found = tmp_path / "a.conflist", tmp_path / "found"
    path.write_bytes(b"planned upon")
    found.hardlink_to(path)
    writer = threading.Thread(target=lambda: found.write_bytes(b"newer"))

    def open_it() -> None:
        writer.start()
        time.sleep(0.2)  # it waits in open(2) now: the file is leased

    if deleting:
        rename = os.rename

        def raced(*args: Any, **kwargs: Any) -> None:
            rename(*args, **kwargs)
            open_it()

        monkeypatch.setattr(os, "rename", raced)
    else:
        when_names_change(monkeypatch, ("after", open_it))
    step = Delete(path.name, b"planned upon") if deleting else Write(path.name, b"ours", b"planned upon")
    with Directory(tmp_path) as folder, pytest.raises(OutdatedError):
        conf_dir.carry_out(folder, [step])
    writer.join()
    assert path.read_bytes() == b"newer"
    assert names(tmp_path) == ["a.conflist", "found"]


def test_a_file_that_is_open_for_writing_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.conflist"
    path.write_bytes(b"planned upon")
    with Directory(tmp_path) as folder, path.open("r+b"):
        with pytest.raises(BusyError, match="has it open for writing"):
            exchange.write(folder, path.name, b"ours", b"planned upon", None)
        with pytest.raises(BusyError):
            exchange.delete(folder, path.name, b"planned upon")
    assert path.read_bytes() == b"planned upon"
    assert names(tmp_path) == ["a.conflist"]


async def test_a_writer_that_holds_the_file_open_for_long_is_not_waited_for_and_wins(
    node: NodeOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conflist_entry, "PATIENCE", 0.3)
    path = node.conf / "10-primary.conflist"
    with path.open("r+b", buffering=0) as held:
        async with running(node.settings) as run:
            await run.until(lambda state: state.installed)
            assert node.has_entry(path.name)
            held.truncate(0)
            held.write(LATEST)
            held.close()
            await eventually(lambda: b"9000" in path.read_bytes() and node.has_entry(path.name), 10, "the latest")
            await eventually(lambda: names(node.conf) == [path.name], 10, "nothing beside it")
    assert conflist.remove(path.read_bytes()) == LATEST


def test_a_file_created_meanwhile_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.conflist"
    when_names_change(monkeypatch, ("before", lambda: path.write_bytes(b"newer")))
    with Directory(tmp_path) as folder, pytest.raises(OutdatedError):
        exchange.write(folder, path.name, b"ours", None, None)
    assert path.read_bytes() == b"newer"
    assert names(tmp_path) == ["a.conflist"]


def test_a_file_deleted_meanwhile_stays_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.conflist"
    path.write_bytes(b"planned upon")
    when_names_change(monkeypatch, ("before", path.unlink))
    with Directory(tmp_path) as folder, pytest.raises(OutdatedError):
        exchange.write(folder, path.name, b"ours", b"planned upon", None)
    assert names(tmp_path) == []


def test_permissions_changed_meanwhile_survive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.conflist"
    path.write_bytes(b"planned upon")
    when_names_change(monkeypatch, ("before", lambda: path.chmod(0o640)))
    with Directory(tmp_path) as folder, pytest.raises(OutdatedError):
        exchange.write(folder, path.name, b"ours", b"planned upon", None)
    assert path.stat().st_mode & 0o777 == 0o640


def without_renameat2() -> None:
    """Make the kernel refuse it to this process, like a file system without rename flags: NFS, 9p."""
    renameat2, offset_of_number = 316, 0  # x86_64
    program = b"".join(
        struct.pack("HBBI", *instruction)
        for instruction in (
            (0x20, 0, 0, offset_of_number),  # load
            (0x15, 0, 1, renameat2),  # jump if equal
            (0x06, 0, 0, 0x00050000 | 22),  # return EINVAL
            (0x06, 0, 0, 0x7FFF0000),  # allow
        )
    )
    buffer = ctypes.create_string_buffer(program)
    filtered = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, filtered, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def scene_without_exchange(root: Path) -> None:
    """Install, follow new content, uninstall; also with a single configuration, which creates and deletes a file."""
    from installer.host.uninstall import uninstall  # noqa: PLC0415

    without_renameat2()
    node = NodeOnDisk.make(root)
    with Directory(node.conf) as folder, pytest.raises(OSError, match="Invalid argument"):
        exchange.renameat2(folder, "a", "b", 1)
    for name, content in (
        ("10-primary.conflist", PRIMARY),
        ("10-primary.conf", b'{"name": "k8s", "cniVersion": "0.3.1", "type": "bridge"}'),
    ):
        (node.conf / name).write_bytes(content)
        node.install()
        listed = names(node.conf)
        assert len(listed) == (2 if name.endswith(".conf") else 1)
        assert node.has_entry(listed[0])
        assert not [done for done in uninstall(node.settings) if done.failed]
        assert node.files() == {name: content}
        (node.conf / name).unlink()
    (node.conf / "a").write_bytes(b"newer")
    with Directory(node.conf) as folder, pytest.raises(OutdatedError):
        exchange.write(folder, "a", b"ours", None, None)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the filter names the system call by its number there")
def test_a_file_system_without_rename_exchange_works(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.host.test_exchange", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, bits, who)
    for tag, bits, who in ((1, 6, 2**32 - 1), (2, 4, 1000), (4, 4, 2**32 - 1), (16, 4, 2**32 - 1), (32, 0, 2**32 - 1))
)  # user::rw- user:1000:r-- group::r-- mask::r-- other::---


def attributes(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


def test_extended_attributes_are_copied(node: NodeOnDisk) -> None:
    path = node.conf / "10-primary.conflist"
    given = {"user.note": b"of the platform", "trusted.label": b"\0\1", "system.posix_acl_access": ACL}
    for name, value in given.items():
        os.setxattr(path, name, value)
    before = path.stat()
    node.install()
    assert node.has_entry(path.name)
    assert given.items() <= attributes(path).items()
    assert (path.stat().st_mode, path.stat().st_uid) == (before.st_mode, before.st_uid)


def test_a_list_converted_from_a_single_configuration_has_its_attributes(tmp_path: Path) -> None:
    node = NodeOnDisk.make(tmp_path)
    path = node.conf / "10-primary.conf"
    path.write_bytes(b'{"name": "k8s", "cniVersion": "0.3.1", "type": "bridge"}')
    path.chmod(0o640)
    os.setxattr(path, "user.note", b"x")
    node.install()
    made = node.conf / "10-primary-istio-cni.conflist"
    assert attributes(made)["user.note"] == b"x"
    assert made.stat().st_mode & 0o777 == 0o640


def test_a_file_gets_no_acl_that_it_did_not_have(node: NodeOnDisk) -> None:
    os.setxattr(node.conf, "system.posix_acl_default", ACL)
    node.install()
    assert "system.posix_acl_access" not in attributes(node.conf / "10-primary.conflist")


def test_a_file_with_other_hard_links_is_logged(node: NodeOnDisk, caplog: pytest.LogCaptureFixture) -> None:
    (node.root / "other").hardlink_to(node.conf / "10-primary.conflist")
    node.install()
    assert (node.root / "other").read_bytes() == PRIMARY
    told = [record for record in caplog.records if "hard links" in record.message]
    assert [vars(record)["names"] for record in told] == [1]


if __name__ == "__main__":
    scene_without_exchange(Path(sys.argv[1]))
