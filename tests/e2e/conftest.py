"""One node for all these tests; when one of them fails, its report has the logs of all parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from installer.config.control_plane import GROUP, PLURAL
from tests.e2e import envoyimage, workloads
from tests.e2e.release import Release
from tests.e2e.shop import SHOP
from tests.image.build import archive
from tests.support.agent import AgentProcess
from tests.support.images import write
from tests.support.node import BIN_DIR, CONF_DIR, NAME, KubernetesNode, TwoNodes
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

PLUGINS = ["bridge", "portmap", "istio-cni"]


@pytest.fixture(scope="package")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesNode]:
    """A node that is Ready, with the images of the tests and a namespace under Pod Security `restricted`."""
    folder = tmp_path_factory.mktemp("node")
    with KubernetesNode(folder) as running:
        tar = write(folder / "envoy.tar", [envoyimage.image()])
        running.import_images(tar)
        tar.unlink()
        running.apply(workloads.namespace(SHOP))
        running.kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={SHOP}", "--timeout=240s")
        yield running


@pytest.fixture(scope="module")
def agent(node: KubernetesNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """The agent as a process on the node, with a service account's token, and its plugin in the runtime's chain."""
    node.kubectl("create", "serviceaccount", "agent", "--namespace=kube-system")
    node.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "agent"},
            "rules": [  # the second kind is not there: the agent has to be told so, not that it may not ask
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
                {"apiGroups": [GROUP], "resources": [PLURAL], "verbs": ["get", "list", "watch"]},
            ],
        }
    )
    node.kubectl("create", "clusterrolebinding", "agent", "--clusterrole=agent", "--serviceaccount=kube-system:agent")
    made = AgentProcess(
        tmp_path_factory.mktemp("agent"),
        conf_dir=CONF_DIR,
        bin_dir=BIN_DIR,
        options={"kubeconfig": node.kubeconfig_of("agent", "kube-system"), "node-name": NAME},
        prefix=node.enter,
    )
    with made:
        made.ready()
        until(lambda: node.plugins_loaded() == PLUGINS, 30, "the runtime has loaded the spliced conflist")
        yield made
    done = made.uninstall()
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def release(node: KubernetesNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """A release of the chart with the image of these files on the node, not installed yet; what is left of it is taken away."""
    node.import_images(archive())
    made = Release(node, tmp_path_factory.mktemp("helm"))
    yield made
    made.uninstall()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    for name, value in getattr(item, "funcargs", {}).items():
        if report.failed and isinstance(value, KubernetesNode | TwoNodes | Release):
            report.sections.append((name, value.logs()))
        if report.failed and isinstance(value, AgentProcess):
            report.sections.append((name, value.log.read_text()))
    return report
