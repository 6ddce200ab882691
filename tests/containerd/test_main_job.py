"""The main job: the traffic of a pod that containerd starts passes through Envoy, because the agent installed the plugin."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.support import envoy
from tests.support.cri import SandboxError
from tests.support.mesh import Mesh, rules, serve, url
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.containerd

PLUGINS = ["bridge", "portmap", "istio-cni"]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("mesh")) as mesh:
        mesh.node.write_primary()
        mesh.node.wait_network_ready()
        mesh.agent.start()
        mesh.agent.ready()
        until(lambda: mesh.node.plugins_loaded() == PLUGINS, 10, "the runtime has loaded the spliced conflist")
        yield mesh


def test_a_meshed_pods_traffic_goes_through_envoy_both_ways(mesh: Mesh) -> None:
    meshed, other = mesh.create("meshed", injected=True), mesh.create("other", injected=False)
    application = serve(meshed)
    serve(other)
    envoy.start(meshed)
    assert envoy.counters(meshed) == {"inbound": 0, "outbound": 0}
    for family, pass_through in enumerate(("127.0.0.6", "::6")):
        assert mesh.get(meshed, family) == f"app {pass_through}"
    assert envoy.counters(meshed) == {"inbound": 2, "outbound": 0}
    for family, source in enumerate(meshed.ips):
        assert application.exec(["/get", url(other, family)]).stdout == f"app {source}\n"
    assert envoy.counters(meshed) == {"inbound": 2, "outbound": 2}
    netns = meshed.netns
    meshed.remove()
    other.remove()
    assert not netns.exists()


@pytest.mark.parametrize(("namespace", "injected"), [("shop", False), ("istio-system", True)])
def test_a_pod_outside_the_mesh_is_not_redirected(mesh: Mesh, namespace: str, injected: bool) -> None:
    pod = mesh.create("plain", namespace, injected=injected)
    serve(pod)
    assert rules(pod) == ""
    assert mesh.get(pod).startswith("app 10.244.")
    pod.remove()


def test_the_runtime_notices_a_repair(mesh: Mesh) -> None:
    conflist = mesh.node.write_primary()
    until(lambda: b"istio-cni" in conflist.read_bytes(), 10, "the agent has repaired the conflist")
    until(lambda: mesh.node.plugins_loaded() == PLUGINS, 10, "the runtime has loaded the repaired conflist")
    pod = mesh.create("after", injected=True)
    assert "redirect to :15006" in rules(pod)
    pod.remove()


def test_without_the_agent_only_mesh_pods_wait(mesh: Mesh) -> None:  # F3, F5
    mesh.agent.stop(signal.SIGKILL)
    try:
        mesh.create("plain", injected=False).remove()
        with pytest.raises(SandboxError, match=r"the istio-cni agent did not answer .* tried again"):
            mesh.create("waits", injected=True)
    finally:
        mesh.agent.start()
        mesh.agent.ready()
    pod = mesh.create("waits", injected=True)
    assert "redirect to :15001" in rules(pod)
    pod.remove()


def test_an_uninstall_leaves_the_runtime_as_it_was(mesh: Mesh) -> None:  # F6: the last one here
    conflist = mesh.node.write_primary()
    primary = conflist.read_bytes()
    until(lambda: b"istio-cni" in conflist.read_bytes(), 10, "the agent has repaired the conflist")
    pod = mesh.create("stays", injected=True)
    assert mesh.agent.stop() == 0
    done = mesh.agent.uninstall()
    assert done.returncode == 0, done.stderr
    assert conflist.read_bytes() == primary
    until(lambda: mesh.node.plugins_loaded() == PLUGINS[:-1], 10, "the runtime has loaded the primary's conflist")
    assert not (mesh.node.bin_dir / "istio-cni").exists()
    mesh.create("new", injected=True).remove()
    pod.remove()
