"""cniConfDir or cniBinDir is changed: what is in the old directories stays, and how it is taken out is told once."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.kubernetes.conftest import PRIMARY, SOON, events, ready
from tests.support.wait import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kubernetes.conftest import Node
    from tests.support.agent import AgentProcess
    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver


def told(cluster: Cluster, node: Node) -> list[str]:
    """What Events on the Node say of what was left behind."""
    return [note for reason, note in events(cluster, node.name) if reason == "StaleInstallation"]


def logged(agent: AgentProcess) -> list[str]:
    """What the log says of it."""
    lines = [json.loads(line) for line in agent.log.read_text().splitlines()]
    return [line["reason"] for line in lines if line["msg"] == "the installation of an earlier agent stays"]


def asked_of_the_kubelet(cluster: Cluster, node: Node, command: list[str]) -> list[str]:
    """Have kubectl make the pod that a command asks for, and return what it runs, with the node's own paths."""
    assert command[0] == "kubectl"
    cluster.kubectl(*command[1:])
    (pod,) = json.loads(
        cluster.kubectl(
            "get", "pods", f"--field-selector=spec.nodeName={node.name}", "--output=json", "--namespace=default"
        )
    )["items"]
    cluster.kubectl("delete", "pod", pod["metadata"]["name"], "--namespace=default", "--force")
    (container,) = pod["spec"]["containers"]
    (volume,) = (each["name"] for each in pod["spec"]["volumes"] if each.get("hostPath", {}).get("path") == "/")
    (mount,) = (each for each in container["volumeMounts"] if each["name"] == volume)
    assert not mount.get("readOnly")
    assert container["image"] == "none", "as the DaemonSet's"
    assert container["command"][0] == "install-cni"
    assert f"--root={mount['mountPath']}" in container["command"]
    return [each for each in container["command"][1:] if not each.startswith("--root=")]


def move(agent: AgentProcess, tmp_path: Path, *names: str) -> None:
    """Start the agent anew with other directories, as the controller's rollout does."""
    assert agent.stop() == 0
    for name in names:
        (tmp_path / f"new-{name}").mkdir()
        agent.set(f"cni-{name}-dir", tmp_path / f"new-{name}")
        setattr(agent, f"{name}_dir", tmp_path / f"new-{name}")
    if "conf" in names:
        (agent.conf_dir / "10-k8s.conflist").write_text(PRIMARY)
    agent.start()
    agent.ready()


@pytest.mark.parametrize("names", [("conf", "bin"), ("conf",), ("bin",)])
def test_files_in_a_former_directory_stay_and_the_reported_command_removes_them(
    cluster: Cluster, node: Node, running: AgentProcess, tmp_path: Path, names: tuple[str, ...]
) -> None:
    until(lambda: ready(cluster, node)[0] == "True", SOON, "it is ready")
    conflist, plugin = running.conf_dir / "10-k8s.conflist", running.bin_dir / "istio-cni"
    move(running, tmp_path, *names)
    until(lambda: told(cluster, node), SOON, "an Event tells")
    assert "istio-cni" in conflist.read_text()
    assert plugin.exists()
    (said,) = told(cluster, node)
    assert logged(running) == [said]
    old = {"conf": conflist.parent, "bin": plugin.parent}
    arguments = asked_of_the_kubelet(cluster, node, shlex.split(said.rpartition(": ")[2]))
    assert arguments == ["uninstall", *(f"--from={old[name]}" for name in names)]
    done = subprocess.run([sys.executable, "-m", "installer", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if "conf" in names:
        assert conflist.read_text() == PRIMARY
    assert plugin.exists() == ("bin" not in names)
    assert "istio-cni" in (running.conf_dir / "10-k8s.conflist").read_text(), "what is in use stays"
    assert (running.bin_dir / "istio-cni").exists()
    assert running.socket.exists()
    assert "repairs_total 0.0" in running.get("/metrics")[1]


def test_files_in_a_former_directory_are_reported_once(
    cluster: Cluster, node: Node, running: AgentProcess, tmp_path: Path
) -> None:
    until(lambda: ready(cluster, node)[0] == "True", SOON, "it is ready")
    move(running, tmp_path, "conf")
    until(lambda: told(cluster, node), SOON, "an Event tells")
    until(lambda: ready(cluster, node)[0] == "True", SOON, "it is ready")
    for _ in range(2):
        assert running.stop() == 0
        running.start()
        running.ready()
    until(lambda: ready(cluster, node)[0] == "True", SOON, "it is ready")
    assert len(told(cluster, node)) == len(logged(running)) == 1
