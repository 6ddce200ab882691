"""critest, by which Kubernetes judges container runtimes (sigs.k8s.io/cri-tools), on a node, with images of our own."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from tests.programs.lots import JUDGES
from tests.support.busybox import image
from tests.support.containerd import CTR
from tests.support.images import write
from tests.support.wait import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.containerd import Node
    from tests.support.images import Image

SOCKET = "unix:///run/containerd/containerd.sock"
SLOWEST = 240  # seconds that a run may take; then critest ends by itself, and says where it was

_REGISTRY = "registry.k8s.io/e2e-test-images"  # a name: the images are imported
_GOARCH = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
_PAGE = {"www/index.html": b"served\n"}


def give_images(node: Node) -> None:
    """Give a node the images that critest asks for: busybox, and web servers at the ports where it looks for them."""
    made = [
        image(f"{_REGISTRY}/busybox:1.29-2"),
        _web_server(f"{_REGISTRY}/nginx:1.14-2", 80),
        _web_server(f"{_REGISTRY}/httpd:2.4.39-4", 80),
        _web_server(f"gcr.io/k8s-staging-cri-tools/hostnet-nginx-{_GOARCH}:latest", 12003),
    ]
    tar = write(node.folder / "critest.tar", made)
    node.run_inside([CTR, "--namespace=k8s.io", "images", "import", "--snapshotter=native", str(tar)])
    tar.unlink()
    until(lambda: all(node.runtime.has_image(each.name) for each in made), 30, "the runtime knows critest's images")


def judge(node: Node, report: Path, focus: str) -> dict[str, str]:
    """Run critest on a node that has its images.

    Args:
        node: with its network ready.
        report: the file that Ginkgo's JSON is to be in; what critest prints is beside it, in a `.log`.
        focus: a regular expression: which specs.

    Returns:
        How each of these ended, by its full name: `passed`, `failed`, or `skipped` where it does not apply.
    """
    command = [
        str(JUDGES.folder / "critest"),
        f"--runtime-endpoint={SOCKET}",
        f"--ginkgo.json-report={report}",
        f"--ginkgo.focus={focus}",
        f"--ginkgo.timeout={SLOWEST}s",
        "--ginkgo.v",
        "--ginkgo.seed=1",  # the same order each time
        "--ginkgo.no-color",
    ]
    node.run_to_end(command, report.with_suffix(".log"), SLOWEST + 60)
    [suite] = json.loads(report.read_text())
    specs = [each for each in suite["SpecReports"] if each["LeafNodeType"] == "It" and each["NumAttempts"]]
    return {" ".join([*each["ContainerHierarchyTexts"], each["LeafNodeText"]]): each["State"] for each in specs}


def _web_server(name: str, port: int) -> Image:
    serve = f"echo httpd is ready; exec httpd -f -p {port} -h /www"
    return image(name, "/bin/sh", "-c", serve, files=_PAGE)
