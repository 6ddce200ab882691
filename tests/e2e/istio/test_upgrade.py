"""From one release of the agent to the next and back: no request goes round a sidecar, no pod starts without one (F7, F31)."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from installer.version import RELEASE
from tests.e2e.istio.mesh import PLAIN
from tests.e2e.istio.test_mesh import refused
from tests.e2e.release import Release
from tests.e2e.shop import ENVOY, url
from tests.e2e.traffic import traffic
from tests.image.next_release import NEXT, image
from tests.programs.lots import KUBE, NODE
from tests.support.node import BIN_DIR
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.e2e.istio.mesh import Mesh
    from tests.support.node import Worker

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

PLUGIN = BIN_DIR / "istio-cni"
SLOWEST = 120.0  # seconds
LOOKS = 10  # at which one call of the plugin is still there: it waits


@contextmanager
def plugin_file_kept(nodes: Sequence[Worker]) -> Iterator[None]:
    """Keep the plugin files of nodes as they are within the block: what something is mounted on cannot be replaced."""
    for node in nodes:
        node.run(["/usr/bin/mount", "--bind", str(PLUGIN), str(PLUGIN)])
    try:
        yield
    finally:
        for node in nodes:
            node.run(["/usr/bin/umount", "--lazy", str(PLUGIN)])


def plugin_files(nodes: Sequence[Worker]) -> list[bytes]:
    return [node.seen(PLUGIN).read_bytes() for node in nodes]


def nodes_with(release: Release, tag: str) -> list[str]:
    """Name the nodes whose agent runs from the image of this tag."""
    return [
        pod["spec"]["nodeName"]
        for pod in release.agents()
        if pod["spec"]["containers"][0]["image"].endswith(f":{tag}")
        and any("running" in each["state"] for each in pod["status"].get("containerStatuses", ()))
    ]


def adds(node: Worker, name: str) -> Iterator[int]:
    """List the calls of the plugin that are to set up a pod of an application now."""
    for pid, command in node.processes.all().items():
        if command[:1] == [str(PLUGIN)]:
            with suppress(OSError):  # it has ended meanwhile
                given = node.seen(Path(f"/proc/{pid}/environ")).read_bytes()
                if b"CNI_COMMAND=ADD" in given and f"K8S_POD_NAME={name}-".encode() in given:
                    yield pid


class Upgrade:
    """From one release to another one, node by node, while pods start on both nodes."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh, self._nodes = mesh, mesh.cluster.nodes
        self.young: list[str] = []  # the applications that have started meanwhile

    def deploy(self) -> dict[str, Worker]:
        """Deploy an application on each node, and return their names."""
        new = {f"young{len(self.young) + number}": node for number, node in enumerate(self._nodes)}
        for name, node in new.items():
            self._mesh.deploy(name, node)
        self.young += new
        return new

    def run(self, to: Release, tag: str, *, waits: bool) -> None:
        """Upgrade.

        Args:
            to: with the helm that does it.
            tag: the release.
            waits: whether a plugin file of the release before waits for an agent of its own.
        """
        before = plugin_files(self._nodes)
        with plugin_file_kept(self._nodes):
            to.install(f"--set=cni.tag={tag}")
            until(lambda: nodes_with(to, tag), SLOWEST, f"a node has the agent of {tag}")
            for name, node in self.deploy().items():
                if waits and node.place.name in nodes_with(to, tag):
                    seen = Counter[int]()
                    until(
                        lambda: seen.update(adds(node, name)) or max(seen.values(), default=0) > LOOKS,  # noqa: B023 - called here
                        SLOWEST,
                        "the plugin waits for an agent of its own",
                    )
                else:
                    self._mesh.ready(name)
            assert len(nodes_with(to, tag)) == 1, "the other node waits until this one is ready"
            assert plugin_files(self._nodes) == before, "the agent of one release, the plugin file of the other"
        while not to.rolled_out():
            for name in self.deploy():
                self._mesh.ready(name)
        assert len(nodes_with(to, tag)) == 2, "each agent was replaced"
        assert not {*plugin_files(self._nodes)} & {*before}, "and each plugin file"


def test_no_request_bypasses_a_sidecar_from_one_release_to_the_next_and_back(
    mesh: Mesh, release: Release, tmp_path: Path
) -> None:
    first, second = mesh.cluster.nodes
    mesh.cluster.import_images(image(tmp_path))
    mesh.start("client", first)
    mesh.start("server", second)
    mesh.start("outside", first, where=PLAIN)
    target, upgrade = mesh.service("server"), Upgrade(mesh)
    helm3, helm4 = (Release(mesh.node, tmp_path, program=lot.folder / "helm") for lot in (KUBE, NODE))
    with traffic(mesh.asking("client", target), f"server {ENVOY}"):
        upgrade.run(helm3, NEXT, waits=False)
        upgrade.run(helm4, RELEASE, waits=True)
    for name in upgrade.young:
        pod = mesh.ready(name)  # one that waited for an agent of its own may be the last
        assert mesh.ask(name, target) == f"server {ENVOY}"
        assert refused(mesh.ask, "outside", url(pod), where=PLAIN)
    mesh.stop("client", "server", *upgrade.young)
    mesh.stop("outside", where=PLAIN)
