"""Holds the namespaces of one node, and takes away all that was in them: `python -I -S holder.py CGROUP FIRST_PROGRAM`.

A process of its own, alone in its session, whose stdin is a pipe that the test holds open. However the test ends (its end, an
error, Ctrl-C, kill -9), the pipe ends with it, and there is one way down from there: the node's first process is killed, with
it the kernel ends every process of the PID namespace, and with these go the mounts and the network namespaces, the pods' too.
The empty cgroups are what the kernel leaves, and are removed here.

On stdout it writes one line, when the namespaces are ready: the process id of the node's first process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x20000000, 0x40000000  # unshare(2)
MS_REC, MS_PRIVATE = 0x4000, 0x40000  # mount(2)
PR_SET_PDEATHSIG = 1  # prctl(2)
SYSCTLS = {  # below /proc/sys/net, which is that of the reader's network namespace
    "ipv4/ip_forward": "1",
    "ipv6/conf/all/forwarding": "1",
    # No duplicate address detection, or the bridge has no IPv6 address to send from in its first two seconds.
    "ipv6/conf/all/accept_dad": "0",
    "ipv6/conf/default/accept_dad": "0",
}
CGROUPS = Path("/sys/fs/cgroup")
SLOWEST_RELEASE = 5.0  # seconds that the kernel may take to let go of a dead process's cgroup

_libc = ctypes.CDLL(None, use_errno=True)


def main(cgroup: str, first_program: str) -> None:
    """Make the namespaces, hold them until stdin ends, clean up."""
    if _libc.unshare(CLONE_NEWPID):  # for the children; this process stays outside, or it could not clean up
        raise _error("unshare")
    ready, told = os.pipe()
    first = os.fork()
    if first == 0:
        _become_first(told, first_program)
    os.close(told)
    try:
        if os.read(ready, 1) != b"+":
            raise SystemExit("holder: the node's namespaces could not be made; the reason stands above")
        sys.stdout.write(f"{first}\n")
        sys.stdout.flush()
        sys.stdin.buffer.read()
    finally:
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)  # returns once every process of its PID namespace is gone (pid_namespaces(7))
        remove_cgroups(cgroup)


def _become_first(told: int, program: str) -> None:
    """Furnish the node from within, as its first process, then leave this place to a program that only reaps."""
    try:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _furnish()
        nothing = os.open("/dev/null", os.O_RDWR)
        os.dup2(nothing, 0)  # or it would hold open what it waits for
        os.dup2(nothing, 1)
        os.write(told, b"+")
        os.execv(program, [program])  # noqa: S606 - no shell is what is wanted
    except BaseException as error:  # noqa: BLE001 - it must not go on as a second holder, whatever happened
        sys.stderr.write(f"holder: {error}\n")
    os._exit(1)


def _furnish() -> None:
    """Give the node namespaces with a /proc, /run and /var/lib of its own, and a network that forwards between its pods.

    /run, because runtime and plugins keep sockets, locks and the pods' netns files at fixed paths there; /var/lib is the
    machine's with what is written laid over it, because libcni and host-local write to /var/lib/cni, which few machines have.
    """
    if _libc.unshare(CLONE_NEWNS | CLONE_NEWNET):
        raise _error("unshare")
    _mount("none", "/", "", MS_REC | MS_PRIVATE)
    _mount("proc", "/proc", "proc")
    _mount("tmpfs", "/run", "tmpfs")
    upper, work = Path("/run/var-lib"), Path("/run/var-lib-work")
    upper.mkdir()
    work.mkdir()
    _mount("overlay", "/var/lib", "overlay", options=f"lowerdir=/var/lib,upperdir={upper},workdir={work}")
    subprocess.run(["/usr/sbin/ip", "link", "set", "lo", "up"], check=True)
    for name, value in SYSCTLS.items():
        Path("/proc/sys/net", name).write_text(value)


def remove_cgroups(name: str) -> None:
    """Remove the cgroups of this name, and those below, from each hierarchy."""
    for top in [CGROUPS / name, *CGROUPS.glob(f"*/{name}")]:  # v2 alone, or a hierarchy a controller
        below = [Path(folder) for folder, _, _ in os.walk(top, topdown=False)]
        for folder in below:
            _remove_cgroup(folder)


def _remove_cgroup(folder: Path) -> None:
    """Remove one; the kernel may tell a process's parent of its death a moment before the cgroup lets go of it."""
    end = time.monotonic() + SLOWEST_RELEASE
    while True:
        try:
            folder.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > end:
                raise
            time.sleep(0.005)
        else:
            return


def _mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    if _libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode()):
        raise _error(f"mount {kind} on {target}")


def _error(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
