"""What critest passes without our plugin it passes with it in the runtime's chain, too."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.containerd.critest import give_images, judge
from tests.programs.build import is_built
from tests.programs.lots import JUDGES
from tests.support.mesh import Mesh
from tests.support.wait import until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.containerd

# What a pod's network has a part in, and what needs no image but a shell and a web server.
FOCUS = r"\[k8s\.io\] (Networking|PodSandbox)|StopPodSandbox.*stopped|HostNetwork is|portforward|multiple containers.*network"


@pytest.mark.timeout(600)
def test_critest_passes_with_the_plugin_what_it_passes_without(tmp_path: Path) -> None:
    assert is_built(JUDGES), f"no {JUDGES.title} in {JUDGES.folder}; `make judges` builds it"
    with Mesh(tmp_path / "mesh") as mesh:
        mesh.node.write_primary()
        mesh.node.wait_network_ready()
        give_images(mesh.node)
        mesh.agent.start()
        mesh.agent.ready()
        until(lambda: mesh.node.plugins_loaded()[-1] == "istio-cni", 30, "the runtime has loaded our entry")
        told = judge(mesh.node, tmp_path / "with.json", FOCUS)
        assert mesh.node.plugins_loaded()[-1] == "istio-cni"
        failed = [name for name, state in told.items() if state not in ("passed", "skipped")]
        if failed:  # without the plugin, too?
            mesh.agent.stop()
            done = mesh.agent.uninstall()
            assert done.returncode == 0, done.stderr
            without = judge(mesh.node, tmp_path / "without.json", "|".join(map(re.escape, failed)))
            assert [name for name in failed if without[name] == "passed"] == []
    passed = [name for name, state in told.items() if state == "passed"]
    assert len([name for name in passed if "runtime should support port mapping" in name]) == 2
