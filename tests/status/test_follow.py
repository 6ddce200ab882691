"""`install-cni status -w` and `--wait`: in a pipe, and on a terminal (a pty)."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from installer.fleet import node_health
from installer.fleet.node_health import State
from installer.status.access import Access
from installer.status.follow import Watching
from tests.status.conftest import COMMAND, environment
from tests.status.objects import NAMESPACE
from tests.support.interrupt import INTERRUPTIBLE
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from installer.status.model import ClusterStatus
    from tests.status.conftest import World

pytestmark = pytest.mark.apiserver

SOON = 90.0  # seconds: much longer than anything here takes
WHEN = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ "
ANY_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LEAVES = "\x1b[?1049l"


class Running:
    """A command that runs, what it has written, and how it ended."""

    def __init__(self, process: subprocess.Popen[bytes], output: int) -> None:
        self.process = process
        self._read = bytearray()
        self._reader = threading.Thread(target=self._take, args=(output,), daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        return self._read.decode(errors="replace").replace("\r\n", "\n")

    @property
    def lines(self) -> list[str]:
        return [re.sub(f"^{WHEN}", "", each) for each in self.text.splitlines()]

    def says(self, what: str) -> None:
        until(lambda: what in self.text or self.process.poll() is not None, SOON, f"{what!r} in {self.text!r}")
        assert what in self.text, self.text

    def end(self) -> int:
        status = self.process.wait(SOON)
        self._reader.join(SOON)
        return status

    def _take(self, output: int) -> None:
        try:
            while data := os.read(output, 65536):
                self._read += data
        except OSError:
            return  # EIO: nobody has the other end of the terminal any more


@contextmanager
def in_a_pipe(world: World, *options: str, kubeconfig: Path | None = None) -> Iterator[Running]:
    command = [*INTERRUPTIBLE, *COMMAND, f"--kubeconfig={kubeconfig or world.kubeconfig}", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(TERM="xterm")
    ) as process:
        assert process.stdout
        try:
            yield Running(process, process.stdout.fileno())
        finally:
            process.kill()


class Terminal(Running):
    """A command on a terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        super().__init__(process, master)
        self.master = master

    def type(self, key: bytes) -> None:
        os.write(self.master, key)

    @property
    def screens(self) -> list[str]:
        """What was drawn in place, without its colours."""
        return [ANY_CONTROL.sub("", each) for each in self.text.split(LEAVES)[0].split("\x1b[H")[1:]]


@contextmanager
def on_a_terminal(world: World, *options: str, columns: int = 100, lines: int = 40, **more: str) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    command = [*INTERRUPTIBLE, "/usr/bin/setsid", "--ctty", *COMMAND, f"--kubeconfig={world.kubeconfig}", *options]
    with subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment(**{"TERM": "xterm-256color", **more})
    ) as process:
        os.close(slave)
        terminal = Terminal(process, master)
        try:
            yield terminal
        finally:
            process.kill()
            os.close(master)


def test_a_pipe_gets_a_line_for_each_change_until_it_is_interrupted(world: World) -> None:
    with in_a_pipe(world, "-w") as running:
        running.says("Healthy: 2 nodes")
        world.report("node-1", ready="False", reason="NoConflist", message="none is there")
        running.says("node-1: Failed: NoConflist: none is there")
        world.report("node-1")
        running.says("node-1: Ready, 0.1.0, nft, 10-calico.conflist")
        world.pod_is("node-2", ready=False, waiting="CrashLoopBackOff")
        running.says("node-2: Failed: CrashLoopBackOff")
        running.process.send_signal(signal.SIGINT)
        assert running.end() == 130
        well = "Healthy: 2 nodes redirect pods by the chart's settings."
        failed = "Degraded: 1 of 2 nodes (1 Failed)."
        assert [each for each in running.lines if not each.startswith("node-")] == [well, failed, well, failed]
        assert all(re.match(WHEN, each) for each in running.text.splitlines())
        assert running.text.replace("\n", "").isprintable()


def test_a_daemonset_that_comes_later_is_followed_with_its_pods(empty: World) -> None:
    with in_a_pipe(empty, "-w") as running:
        running.says("Not installed: ")
        empty.add_daemonset(1)
        empty.add_nodes("node-1")
        running.says("Healthy: 1 node redirects pods by the chart's settings.")
        empty.pod_is("node-1", ready=False, waiting="ImagePullBackOff")
        running.says("node-1: Failed: ImagePullBackOff")


def test_json_watch_prints_a_document_for_each_change(world: World) -> None:
    with in_a_pipe(world, "-w", "-o", "json") as running:
        running.says('"Healthy"')
        world.report("node-1", ready="False")
        running.says('"Degraded"')
        running.process.send_signal(signal.SIGINT)
        running.end()
        assert [json.loads(each)["health"] for each in running.text.splitlines()] == ["Healthy", "Degraded"]


def test_outage_and_recovery_are_reported_once_each(world: World) -> None:
    with in_a_pipe(world, "-w") as running:
        running.says("Healthy: 2 nodes")
        world.cluster.kill_apiserver()
        running.says(f"https://127.0.0.1:{world.cluster.port} (")
        world.cluster.start_apiserver()
        running.says("The API server is reachable again.")
        world.report("node-1", ready="False", reason="Later", message="after it")
        running.says("node-1: Failed: Later: after it")
        assert sum("https://127.0.0.1" in each for each in running.lines) == 1


def test_list_without_watch_right_polls_slowly(world: World) -> None:
    resources = (
        "nodes,pods,daemonsets.apps,deployments.apps,istiocontrolplanes.install.istio.io,istiocninodes.cni.istio.io"
    )
    world.cluster.service_account("default", "lister", verbs="list", resource=resources)
    lister = world.cluster.kubeconfig("lister", token=world.cluster.token("default", "lister"))
    with in_a_pipe(world, "-w", kubeconfig=lister) as running:
        running.says("Healthy: 2 nodes")
        world.report("node-1", ready="False", reason="Later", message="seen")
        running.says("node-1: Failed: Later: seen")
    asked = [*world.cluster.requests_of("system:serviceaccount:default:lister")]
    assert len(asked) < 40


def test_wait_ends_when_everything_is_healthy(world: World) -> None:
    world.report("node-1", ready="False", reason="Starting", message="soon")
    with in_a_pipe(world, "--wait", "--timeout", "2m") as running:
        running.says("node-1: Failed: Starting: soon")
        world.report("node-1")
        assert running.end() == 0
        assert running.lines[-2].startswith("Healthy: ")


def test_wait_ends_at_its_timeout(world: World) -> None:
    world.report("node-1", ready="False", reason="Starting", message="never")
    done = world.status("--wait", "--timeout", "2s")
    assert done.returncode == 1
    assert "node-1: Failed: Starting: never" in done.stdout


def test_a_timeout_without_wait_is_refused(world: World) -> None:
    done = world.status("-w", "--timeout", "2s")
    assert done.returncode == 2
    assert "saw --timeout without --wait" in done.stderr
    assert "expected a number of seconds" in world.status("--wait", "--timeout", "soon").stderr


def test_a_terminal_gets_colours_and_lines_that_fit(world: World) -> None:
    world.report("node-1", ready="False", reason="NoConflist", message="word " * 40)
    with on_a_terminal(world, columns=60) as terminal:
        assert terminal.end() == 1
        assert "\x1b[1;31mDegraded: 1 of 2 nodes (1 Failed).\x1b[0m\n" in terminal.text
        assert "\x1b[32mReady\x1b[0m" in terminal.text
        plain = ANY_CONTROL.sub("", terminal.text)
        assert max(map(len, plain.splitlines())) <= 60
        assert "VERSION" not in plain


def test_no_color_is_respected(world: World) -> None:
    with on_a_terminal(world, NO_COLOR="1") as terminal:
        assert terminal.end() == 0
        assert "\x1b" not in terminal.text
    with on_a_terminal(world, TERM="dumb") as terminal:
        assert terminal.end() == 0
        assert "\x1b" not in terminal.text


def test_a_rollout_has_a_bar_that_grows_in_place_until_ctrl_c(world: World) -> None:
    patch = json.dumps({"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}})
    world.cluster.kubectl("patch", "daemonset", "istio-cni-node", f"--namespace={NAMESPACE}", f"--patch={patch}")
    world.patch_status("daemonset", "istio-cni-node", {"observedGeneration": 2})
    with on_a_terminal(world, "-w") as terminal:
        until(lambda: f"Rollout {'░' * 40} 0 of 2 nodes (0 %)" in "".join(terminal.screens), SOON, "an open bar")
        world.cluster.kubectl(
            "label",
            "pod",
            "istio-cni-node-node-1",
            f"--namespace={NAMESPACE}",
            "pod-template-generation=2",
            "--overwrite",
        )
        half = f"Rollout {'█' * 20}{'░' * 20} 1 of 2 nodes (50 %)"
        until(lambda: half in "".join(terminal.screens), SOON, "half a bar")
        world.cluster.kubectl(
            "label",
            "pod",
            "istio-cni-node-node-2",
            f"--namespace={NAMESPACE}",
            "pod-template-generation=2",
            "--overwrite",
        )
        until(lambda: "Healthy: 2 nodes" in terminal.screens[-1], SOON, "it is well")
        terminal.type(b"\x03")
        assert terminal.end() == 130
        drawn, _, left = terminal.text.partition(LEAVES)
        assert drawn.startswith("\x1b[?1049h")
        assert "\x1b[?25h" in drawn[-20:]
        assert "Healthy: 2 nodes" in left
        assert "Traceback" not in terminal.text
        assert all(each.count("\n") < 40 for each in terminal.screens)


def test_lines_beyond_the_screen_are_counted(world: World) -> None:
    with on_a_terminal(world, "-w", lines=8) as terminal:
        until(lambda: bool(terminal.screens), SOON, "it is drawn")
        assert re.search(r"\(\d+ more lines: install-cni status \| less\)", terminal.screens[0])
        assert len(terminal.screens[0].splitlines()) == 8


def test_a_terminal_is_left_as_it_was_when_it_is_terminated(world: World) -> None:
    with on_a_terminal(world, "-w") as terminal:
        until(lambda: bool(terminal.screens), SOON, "it is drawn")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end() == 128 + signal.SIGTERM
        assert LEAVES in terminal.text


def test_wait_on_a_terminal_leaves_the_last_status(world: World) -> None:
    with on_a_terminal(world, "--wait") as terminal:
        assert terminal.end() == 0
        assert "Healthy: 2 nodes" in terminal.text.partition(LEAVES)[2]


class _Ended(Exception):  # noqa: N818 - not an error
    """What was waited for has been shown."""


class _Until:
    """Does not tick, as a pipe, and ends once a node has had each of these states."""

    ticks = False

    def __init__(self, *states: State) -> None:
        self._left = [*states]

    def show(self, found: ClusterStatus) -> None:
        if self._left[0] in {each.state for each in found.nodes}:
            del self._left[0]
        if not self._left:
            raise _Ended

    def lost(self, why: str) -> None:
        raise AssertionError(why)


def test_agent_that_does_not_start_fails_after_patience_without_an_event(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.pod_is("node-1", ready=False, waiting="ContainerCreating")
    monkeypatch.setattr(node_health, "PATIENCE", timedelta(seconds=4))
    never = 3600  # when the status is drawn in any case, long after this test has run out of time
    with pytest.raises(_Ended):
        Watching(Access(world.kubeconfig, None), None).run(
            _Until(State.REPAIRING, State.FAILED), until_healthy=False, timeout=never
        )
