"""The chart with an image that is pinned by its digest, on a node whose containerd has it under that name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from installer.version import RELEASE
from tests.e2e.release import DAEMONSET, NAMESPACE, SLOWEST
from tests.image.build import HUB, NAME

if TYPE_CHECKING:
    from tests.e2e.release import Release
    from tests.support.node import KubernetesNode

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.mark.parametrize("tag", ["", RELEASE], ids=["digest", "tag and digest"])
def test_the_agent_runs_from_an_image_that_is_pinned_by_its_digest(
    node: KubernetesNode, release: Release, tag: str
) -> None:
    ctr = [str(node.parts.programs / "ctr"), "--namespace=k8s.io", "images"]
    listed = node.run([*ctr, "list", f"name=={NAME}"]).splitlines()[-1].split()
    digest = next(word for word in listed if word.startswith("sha256:"))
    node.run([*ctr, "tag", "--force", NAME, f"{HUB}/install-cni@{digest}"])  # as a pull by digest names it
    release.install("--set=cni.controller.enabled=false", f"--set=cni.tag={tag}@{digest}")
    node.rolled_out(DAEMONSET, NAMESPACE, SLOWEST)
    pod = release.agents()[-1]
    assert pod["spec"]["containers"][0]["image"] == f"{HUB}/install-cni:{tag}@{digest}".replace(":@", "@")
    (status,) = pod["status"]["containerStatuses"]
    assert status["ready"]
    assert digest in status["imageID"]
