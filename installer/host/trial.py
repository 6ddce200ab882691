"""Whether the plugin file can be executed in its place, which its bytes do not prove (F41).

It is executed for VERSION, as a runtime may do, through the agent's own mount of cniBinDir. That has the flags which the
node's mount had when the agent's container was created; a later remount on the node (`mount -o remount,noexec`) does not reach
it, and stays undetected until the agent's pod restarts. So does what affects the runtime's process alone: its own seccomp
filter, a policy for its SELinux domain, or another plugin directory.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING

from installer.config.settings import PLUGIN
from plugin.tool import name_signal

if TYPE_CHECKING:
    from installer.host.directory import Directory

PATIENCE = 10.0  # seconds; it takes some milliseconds
_REQUEST = b'{"cniVersion": "1.0.0"}'
_REFUSED = (errno.EACCES, errno.EPERM)
_NOT_FOR_HERE = (errno.ENOEXEC, errno.ENOENT, errno.ELIBBAD, errno.EINVAL)  # of execve, for a file that is there
# An instruction that this processor lacks, a filtered system call. Any other signal may be transient, such as
# SIGKILL or SIGSEGV when memory runs out.
_OF_THE_NODE = (signal.SIGILL, signal.SIGSYS)


class NotExecutableError(Exception):
    """The plugin file cannot be executed: a runtime could start and stop no pod. The message holds reason and remedy."""


def is_noexec(folder: Directory) -> bool:
    """Whether a directory is mounted noexec."""
    return bool(os.fstatvfs(folder.fd).f_flag & os.ST_NOEXEC)


def try_out(folder: Directory) -> None:
    """Execute the plugin file in cniBinDir for VERSION.

    Raises:
        NotExecutableError: if it cannot be executed, or does not answer like a plugin.
        OSError: if that cannot be determined now: no process can be started, or it did not end in time.
    """
    path = folder.path / PLUGIN
    if is_noexec(folder):
        raise NotExecutableError(
            f"{folder.path} is mounted noexec, and the runtime can execute no plugin there: mount it with exec and restart the "
            "agent's pod on this node, or set cniBinDir to the directory in which the runtime executes plugins"
        )
    try:
        # Through our own descriptor: the examined directory, whatever its path means by now.
        result = subprocess.run(
            [f"/proc/{os.getpid()}/fd/{folder.fd}/{PLUGIN}"],
            env={"CNI_COMMAND": "VERSION"},
            input=_REQUEST,
            capture_output=True,
            cwd="/",
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(errno.ETIMEDOUT, f"VERSION: no answer within {PATIENCE:g} s", str(path)) from error
    except OSError as error:
        raise _exec_error(error, folder) from error
    if result.returncode < 0 and -result.returncode not in _OF_THE_NODE:
        raise OSError(errno.ECANCELED, f"VERSION: ended by {name_signal(-result.returncode)}", str(path))
    if result.returncode or not _is_answer(result.stdout):
        raise NotExecutableError(
            f"{path} does not work on this node: saw {_describe(result)} for VERSION, expected the CNI versions that it knows: "
            "check that the image is of this release and of this node's architecture"
        )


def _exec_error(error: OSError, folder: Directory) -> Exception:
    path = folder.path / PLUGIN
    if error.errno in _REFUSED:
        label = f" (SELinux label {found})" if (found := _label(folder)) else ""
        return NotExecutableError(
            f"{path} cannot be executed: {error.strerror}{label}, though its permissions allow it: see the "
            "node's audit log for what refuses it (SELinux, AppArmor, IMA, fapolicyd), and allow it there"
        )
    if error.errno in _NOT_FOR_HERE:
        return NotExecutableError(
            f"{path} cannot be executed: {error.strerror}, expected a program for {os.uname().machine}: check that the image "
            "is of this node's architecture"
        )
    return OSError(error.errno, error.strerror, str(path))  # such as no memory; tried again


def _label(folder: Directory) -> str:
    try:
        label = os.getxattr(f"/proc/self/fd/{folder.fd}/{PLUGIN}", "security.selinux")
    except OSError:
        return ""
    return label.rstrip(b"\0").decode("utf-8", "replace")


def _is_answer(stdout: bytes) -> bool:
    try:
        answer = json.loads(stdout)
    except (ValueError, RecursionError):
        return False
    return isinstance(answer, dict) and isinstance(answer.get("supportedVersions"), list)


def _describe(result: subprocess.CompletedProcess[bytes]) -> str:
    if result.returncode < 0:
        return f"its end by {name_signal(-result.returncode)}"
    output = (result.stdout or result.stderr)[:80]
    return f"exit status {result.returncode} and {repr(output) if output else 'no output'}"
