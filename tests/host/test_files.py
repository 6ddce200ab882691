"""Files on a real disk: bounded reads, atomic writes, nothing left behind."""

import fcntl
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from installer.cniconfig.plan import Delete, Write
from installer.config.value_types import CONF_SUFFIXES
from installer.host import conf_dir
from installer.host.agent_lock import AlreadyRunningError, lock, lock_file
from installer.host.directory import Directory
from installer.host.exchange import OutdatedError
from installer.host.files import LARGEST, Access, UnreadableError, is_temporary
from tests.support.ondisk import names, open_descriptors

pytestmark = pytest.mark.kernel


def test_a_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a.conflist").write_bytes(b"old")
    before = (tmp_path / "a.conflist").stat().st_ino
    with (tmp_path / "a.conflist").open("rb") as reader, Directory(tmp_path) as folder:
        folder.write("a.conflist", (b"new", b"er"), Access(0o640, 7, 8))
        assert reader.read() == b"old"  # who had it open reads on
    seen = (tmp_path / "a.conflist").stat()
    assert (tmp_path / "a.conflist").read_bytes() == b"newer"
    assert (seen.st_mode & 0o7777, seen.st_uid, seen.st_gid) == (0o640, 7, 8)
    assert seen.st_ino != before
    assert names(tmp_path) == ["a.conflist"]


def test_content_and_name_are_on_the_disk_in_this_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def noted(name: str) -> Any:
        call = getattr(os, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            kind = ""
            if name == "fsync":
                kind = " directory" if stat.S_ISDIR(os.fstat(args[0]).st_mode) else " file"
            done.append(name + kind)
            return call(*args, **kwargs)

        return wrapped

    for name in ("write", "fchown", "fchmod", "fsync", "replace", "unlink"):
        monkeypatch.setattr(os, name, noted(name))
    with Directory(tmp_path) as folder:
        folder.write("a", (b"x",), Access(0o600))
        assert done == ["write", "fchown", "fchmod", "fsync file", "replace", "fsync directory"]
        done.clear()
        folder.delete("a")
        assert done == ["unlink", "fsync directory"]


def test_a_write_that_fails_leaves_what_was_there_and_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    descriptors = open_descriptors()
    with Directory(tmp_path) as folder, pytest.raises(IsADirectoryError) as error:
        folder.write("a", (b"x",), Access(0o600))
    assert error.value.filename == str(tmp_path / "a")
    assert names(tmp_path) == ["a"]
    assert open_descriptors() == descriptors


def test_a_write_avoids_leftover_temporary_files_and_follows_no_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / ".a.istio-cni-tmp").symlink_to(victim)
    with Directory(tmp_path) as folder:
        folder.write("a", (b"x",), Access(0o600))
    assert victim.read_bytes() == b"mine"
    assert names(tmp_path) == ["a", "victim"]


def test_the_sweep_deletes_only_unfinished_writes(tmp_path: Path) -> None:
    for name in (".a.conflist.istio-cni-tmp", "a.istio-cni-tmp", ".a.conflist", ".b.tmp"):
        (tmp_path / name).touch()
    with Directory(tmp_path) as folder:
        assert folder.sweep() == [".a.conflist.istio-cni-tmp"]
    assert not (tmp_path / ".a.conflist.istio-cni-tmp").exists()
    assert len(names(tmp_path)) == 3


def test_no_runtime_reads_the_name_of_an_unfinished_write() -> None:
    assert is_temporary(".10-x.conflist.istio-cni-tmp")
    assert not ".10-x.conflist.istio-cni-tmp".endswith(CONF_SUFFIXES)


def test_only_small_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.conf")
    (tmp_path / "link.conf").symlink_to(tmp_path / "good")
    (tmp_path / "good").write_bytes(b"{}")
    (tmp_path / "dangling.conf").symlink_to("nowhere")
    (tmp_path / "zero.conf").symlink_to("/dev/zero")
    (tmp_path / "directory.conf").mkdir()
    (tmp_path / "to-directory.conf").symlink_to(tmp_path / "directory.conf")
    with (tmp_path / "huge.conf").open("wb") as file:
        file.truncate(LARGEST + 1)
    descriptors = open_descriptors()
    with Directory(tmp_path) as folder:
        found = conf_dir.listing(folder)
    assert open_descriptors() == descriptors
    reasons = {name: str(content) for name, content in found.items() if isinstance(content, OSError)}
    assert found["link.conf"] == b"{}"
    assert reasons == {
        "fifo.conf": "not a regular file (prw-r--r--)",
        "dangling.conf": "a symbolic link to a missing file",
        "zero.conf": "not a regular file (crw-rw-rw-)",
        "to-directory.conf": "not a regular file (drwxr-xr-x)",
        "huge.conf": f"{LARGEST + 1} bytes, expected at most {LARGEST}",
    }
    assert set(found) == {"link.conf", *reasons}


def test_a_file_deleted_after_listing_is_distinguished_from_an_unreadable_one(tmp_path: Path) -> None:
    with Directory(tmp_path) as folder, pytest.raises(FileNotFoundError):
        folder.read("gone.conf")
    (tmp_path / "loop.conf").symlink_to("loop.conf")
    with Directory(tmp_path) as folder, pytest.raises(UnreadableError, match="symbolic links"):
        folder.read("loop.conf")


def test_steps_planned_for_other_content_are_not_applied(tmp_path: Path) -> None:
    (tmp_path / "a.conflist").write_bytes(b"written meanwhile")
    steps: list[Write | Delete] = [Write("a.conflist", b"ours", b"as planned"), Delete("b.conf", b"x")]
    for step in steps:
        with Directory(tmp_path) as folder, pytest.raises(OutdatedError):
            conf_dir.carry_out(folder, [step])
    assert (tmp_path / "a.conflist").read_bytes() == b"written meanwhile"


def test_one_agent_holds_the_lock_of_a_socket(tmp_path: Path) -> None:
    socket = tmp_path / "run" / "agent.sock"
    held = lock(socket)
    with pytest.raises(AlreadyRunningError, match=f"process {os.getpid()}\\), expected none"):
        lock(socket)
    os.close(held)
    os.close(lock(socket))


def test_a_lock_file_deleted_between_open_and_lock_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = tmp_path / "agent.sock"
    flock = fcntl.flock
    attempts: list[int] = []

    def too_late(fd: int, operation: int) -> None:
        if not attempts:
            lock_file(socket).unlink()
        attempts.append(fd)
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", too_late)
    held = lock(socket)
    with pytest.raises(AlreadyRunningError):
        lock(socket)
    os.close(held)


def test_a_deleted_lock_file_does_not_let_two_agents_hold_the_lock(tmp_path: Path) -> None:
    socket = tmp_path / "agent.sock"
    first = lock(socket)
    lock_file(socket).unlink()
    second = lock(socket)
    with pytest.raises(AlreadyRunningError):
        lock(socket)
    os.close(first)
    os.close(second)
