"""A node without shared mounts, like k3d and docker: the agent starts, and reports what it cannot see (F41)."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from installer.host.restart import MARGIN
from installer.host.socket_dir import require_own
from tests.chart.helm import CHART, Rendered, helm
from tests.containerd.test_pod_repair import SOON
from tests.containerd.test_unredirected import PATIENCE, REDIRECT, count, named
from tests.support.cri import CriError
from tests.support.images import APP
from tests.support.machine import NSENTER
from tests.support.mesh import PORT, Mesh, rules
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.containerd

RESTARTED = "exiting: a running pod needs its redirect"
# Runs a command in this process once a file is there, and says that it waits with another one.
HELD_UP = ': > "$0.waits"; until [ -e "$0.go" ]; do sleep 0.1; done; exec "$@"'


def as_the_kubelet_mounts(mesh: Mesh, home: Path, *options: str) -> tuple[dict[Path, str], set[str]]:
    """Say which of the node's directories the chart's agent gets and where, and to which mounts are propagated."""
    own = (f"--set=cni.cniBinDir={mesh.node.bin_dir}", f"--set=cni.cniConfDir={mesh.node.conf_dir}")
    made = helm("template", "release", str(CHART), *own, *options, values={}, home=home)
    assert made.returncode == 0, made.stderr
    rendered = Rendered(made.stdout)
    paths = {each["name"]: each["hostPath"]["path"] for each in rendered.pod["volumes"]}
    for path in paths.values():
        mesh.node.run_inside(["/usr/bin/mkdir", "-p", path])  # DirectoryOrCreate
    mounts = {Path(paths[each["name"]]): each["mountPath"] for each in rendered.container["volumeMounts"]}
    asked = {each["mountPath"]: each.get("mountPropagation", "None") for each in rendered.container["volumeMounts"]}
    return mounts, {path for path, propagation in asked.items() if propagation == "HostToContainer"}


def test_the_runtime_starts_a_container_with_the_charts_mounts(mesh: Mesh, tmp_path: Path) -> None:
    pod = mesh.create("agent", injected=False)
    command = ["/web", "agent", str(PORT)]
    mounts, propagated = as_the_kubelet_mounts(mesh, tmp_path, "--set=cni.mountPropagation=HostToContainer")
    with pytest.raises(CriError, match="not a shared or slave mount"):
        pod.run("refused", APP, command, mounts=mounts, propagated=propagated)
    mounts, propagated = as_the_kubelet_mounts(mesh, tmp_path)
    assert pod.run("install-cni", APP, command, mounts=mounts, propagated=propagated).running
    pod.remove()
    mesh.forget()


@pytest.fixture
def contained(mesh: Mesh) -> Iterator[Mesh]:
    """An agent that has the node's mounts as they are when it starts, and that nobody writes into the runtime's chain."""
    mounts = mesh.node.netns.with_name("mnt")
    enter = [NSENTER, f"--mount={mounts}", "--"]
    mesh.agent.prefix = [*enter, "/usr/bin/unshare", "--mount", "--propagation=private", "--mount-proc", "--"]
    mesh.mount("netns-dir", Path("/run/netns"))
    mesh.mount("cni-cache-dir", Path("/var/lib/cni"))
    mesh.agent.set("chained", "false")
    yield mesh
    mesh.agent.stop()
    assert mesh.agent.uninstall().returncode == 0
    assert not mesh.agent.socket.parent.exists(), "nothing is left beside the socket"


def started(mesh: Mesh) -> None:
    mesh.agent.start()
    mesh.agent.ready()


def test_visible_netns_are_repaired_and_hidden_ones_cause_one_restart(contained: Mesh) -> None:
    mesh = contained
    early = mesh.create("early", injected=True)
    started(mesh)
    until(lambda: REDIRECT in rules(early), SOON, "the pod from before has rules")
    slipped = mesh.create("slipped", injected=True)
    assert mesh.agent.process
    assert mesh.agent.process.wait(PATIENCE) == mesh.agent.stop() == 0
    assert RESTARTED in mesh.agent.log.read_text()
    assert rules(slipped) == ""
    require_own(mesh.agent.socket)
    started(mesh)
    until(lambda: REDIRECT in rules(slipped), SOON, "the next one sees it")
    later = mesh.create("later", injected=True)
    mesh.runs(later)
    until(lambda: "later" in named(mesh), PATIENCE, "it is named")
    assert "the agent cannot see its network namespace: /run/netns/" in named(mesh)["later"]
    assert count(mesh) == "1.0"
    assert mesh.agent.process.poll() is None, "it does not exit repeatedly"
    assert mesh.agent.get("/readyz")[0] == 200
    ended = json.loads(mesh.result_file(early).read_bytes())["result"]["interfaces"][-1]["sandbox"].removeprefix("/var")
    seen = Path(f"/proc/{mesh.agent.process.pid}/mountinfo")
    assert f" {ended} " in seen.read_text()
    for pod in (early, slipped, later):
        pod.remove()
    assert f" {ended} " not in seen.read_text(), "it keeps no netns of a pod that has ended"


def test_a_netns_that_was_mounted_long_before_a_slow_agent_ran_causes_a_restart(
    contained: Mesh, tmp_path: Path
) -> None:
    mesh = contained
    prefix, slow = mesh.agent.prefix, tmp_path / "slow"
    mesh.agent.prefix = [*prefix, "/bin/sh", "-ec", HELD_UP, str(slow)]
    mesh.agent.start()
    until(slow.with_suffix(".waits").exists, SOON, "its container has its mounts")
    slipped = mesh.create("slipped", injected=True)
    runs_from = time.time() + 2 * MARGIN
    until(lambda: time.time() > runs_from, 4 * MARGIN, "a busy node lets it run")
    slow.with_suffix(".go").touch()
    mesh.agent.prefix = prefix
    assert mesh.agent.process
    assert mesh.agent.process.wait(PATIENCE) == mesh.agent.stop() == 0
    assert RESTARTED in mesh.agent.log.read_text()
    started(mesh)
    until(lambda: REDIRECT in rules(slipped), SOON, "the next one sees it")
    slipped.remove()
