"""The image and the chart on a whole Kubernetes node: what those who install it see of it, to the last file."""

from __future__ import annotations

import json
import shlex
import shutil
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from installer.controller.taints import KEY
from installer.repair.runtime_check import LOADED_WITHIN
from installer.version import RELEASE
from tests.e2e.release import NAME_OF_RELEASE, NAMESPACE, PARTS, RESOURCE
from tests.e2e.shop import ENVOY, SHOP, connections, from_node, from_pod, removed, started, url
from tests.e2e.workloads import deployment, hasty
from tests.image.build import HUB
from tests.support import nodeconfig
from tests.support.node import BIN_DIR, CONF_DIR, NAME
from tests.support.wait import until

if TYPE_CHECKING:
    from tests.e2e.release import Release
    from tests.support.node import KubernetesNode, Worker

AGENTS = f"--namespace={NAMESPACE}", "--selector=k8s-app=istio-cni-node"
FOLDERS = (BIN_DIR, CONF_DIR)
SOCKETS = Path("/run/istio-cni")
OLD_DIR = Path("/etc/cni/old.d")

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def names_of(pods: list[dict[str, Any]]) -> set[str]:
    return {pod["metadata"]["name"] for pod in pods}


Files = dict[str, tuple[int, bytes]]  # permissions and content, or where a link leads to, by their path


def all_files(node: Worker) -> dict[Path, Files]:
    """Read all that is in the folders that the chart is told of."""
    return {folder: _files(node.seen(folder)) for folder in FOLDERS}


def _files(folder: Path) -> Files:
    return {
        str(path.relative_to(folder)): (
            stat.S_IMODE(path.lstat().st_mode),
            bytes(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else b"",
        )
        for path in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def before(node: KubernetesNode) -> dict[Path, Files]:
    """What is on the node before the chart has come there."""
    return all_files(node)


@pytest.fixture(scope="module")
def early(node: KubernetesNode, before: object) -> dict[str, Any]:
    """A meshed pod that runs before the chart has come there, and its traffic does not go through Envoy."""
    pod = started(node, "early", injected=True)
    assert from_node(node, url(pod)).startswith("early 10.244.1.")
    return pod


@pytest.fixture(scope="module")
def waiting(node: KubernetesNode, early: object) -> dict[str, Any]:
    """A meshed Deployment that was made while the node had the startup taint, before any agent was there."""
    node.kubectl("taint", "node", NAME, f"{KEY}:NoSchedule")
    made = deployment("waiting", SHOP, injected=True)
    node.apply(made)
    until(lambda: waits_for_the_taint(node, "waiting"), 30, "the scheduler says that it waits for the taint to go")
    return made


def waits_for_the_taint(node: KubernetesNode, name: str) -> bool:
    """Tell whether the scheduler says so of an application's pod."""
    return "untolerated taint" in str(node.read("pods", SHOP, app=name))


def taints(node: KubernetesNode) -> list[str]:
    """Return the keys of the node's taints."""
    return [each["key"] for each in node.read(f"node/{NAME}")["spec"].get("taints", ())]


@pytest.fixture
def installed(release: Release, waiting: object) -> Release:
    """The chart, ready on the node, and an IstioControlPlane that is in force; a test may change both."""
    release.restore()
    return release


def test_a_pod_waits_until_the_startup_taint_is_removed_and_is_redirected(
    node: KubernetesNode, installed: Release
) -> None:
    node.wait("condition=Available", "deployment/waiting", f"--namespace={SHOP}")
    assert taints(node) == []
    events = node.kubectl("get", "events", "--field-selector=involvedObject.kind=Node,reason=IstioCNIReady")
    assert f"removed the taint {KEY}" in events
    assert from_node(node, url(pod_of(node, "waiting"))) == f"waiting {ENVOY}"
    assert installed.get("istiocninodes")["items"][0]["status"]["pods"]["repaired"] <= 1, "this one never was without"
    node.kubectl("delete", "deployment/waiting", f"--namespace={SHOP}", "--cascade=foreground")


def test_the_plugin_is_in_the_runtimes_chain_and_the_node_reports_it(installed: Release) -> None:
    until(lambda: installed.node.plugins_loaded()[-1] == "istio-cni", 30, "the runtime has loaded the spliced conflist")
    status = installed.get("istiocninodes")["items"][0]["status"]
    assert status["state"] == "Installed"
    assert status["backend"]["name"] == "nft", "the first of those that lack nothing"
    assert {each["type"]: each["status"] for each in status["conditions"]}["Ready"] == "True"


def test_a_pod_from_before_the_installation_is_redirected_while_it_runs(
    node: KubernetesNode, installed: Release, early: dict[str, Any]
) -> None:
    until(lambda: from_node(node, url(early)) == f"early {ENVOY}", 30, "its traffic goes through Envoy")
    until(lambda: "Redirected" in events_of(node, early), 30, "an Event says so")
    status = installed.get("istiocninodes")["items"][0]["status"]
    assert status["pods"]["repaired"] == 1
    removed(node, "early")


def test_the_controller_reports_the_resource_as_healthy(installed: Release) -> None:
    installed.node.wait("jsonpath={.status.status.cni.status}=HEALTHY", f"icp/{RESOURCE}", f"--namespace={NAMESPACE}")
    status = installed.get(f"icp/{RESOURCE}")["status"]
    assert status["status"]["cni"]["version"] == RELEASE
    assert (status["nodes"]["total"], status["nodes"]["ready"]) == (1, 1)


def test_injected_pods_go_through_envoy_and_others_do_not(node: KubernetesNode, installed: Release) -> None:
    meshed, plain = started(node, "meshed", injected=True), started(node, "plain", injected=False)
    before = connections(node, meshed)
    assert from_node(node, url(meshed)) == f"meshed {ENVOY}"
    assert from_node(node, url(plain)).startswith("plain 10.244.1.")
    assert from_pod(node, "meshed", url(plain)) == f"plain {meshed['status']['podIP']}"
    assert connections(node, meshed)["outbound"] == before["outbound"] + 1
    removed(node, "meshed", "plain")


def test_an_init_container_without_network_gets_an_event_with_the_remedy(
    node: KubernetesNode, installed: Release
) -> None:
    plain = started(node, "plain", injected=False)
    node.apply(hasty("hasty", SHOP, url(plain)))
    events = ("get", "events", f"--namespace={SHOP}", "--field-selector=reason=InitContainerBeforeSidecar")
    until(
        lambda: "init container fetch runs before the sidecar is up" in node.kubectl(*events), 60, "an Event says so"
    )  # F21
    removed(node, "plain")
    node.kubectl("delete", "deployment/hasty", f"--namespace={SHOP}", "--cascade=foreground")
    assert installed.get("istiocninodes")["items"][0]["status"]["state"] == "Installed"


def test_an_excluded_namespace_applies_to_the_next_pod(node: KubernetesNode, installed: Release) -> None:
    agents = names_of(installed.agents())
    earlier = started(node, "earlier", injected=True)
    installed.steer("shop")
    later = started(node, "later", injected=True)
    assert from_node(node, url(earlier)) == f"earlier {ENVOY}"
    assert from_node(node, url(later)).startswith("later 10.244.1.")
    installed.steer()
    until(lambda: from_node(node, url(later)) == f"later {ENVOY}", 30, "a pod that runs is meshed, too, by then")
    again = started(node, "again", injected=True)
    assert from_node(node, url(again)) == f"again {ENVOY}"
    assert names_of(installed.agents()) == agents, "no agent was started for it"
    removed(node, "earlier", "later", "again")


def test_pods_are_deleted_if_chart_and_resource_say_delete(node: KubernetesNode, installed: Release) -> None:
    installed.steer("shop", repairMode="delete")
    pod = started(node, "unredirected", injected=True)
    installed.steer(repairMode="delete")
    remedy = "helm upgrade --set cni.repairMode=delete"
    until(lambda: remedy in events_of(node, pod), 30, "an Event says that the right is missing")
    status = installed.get("istiocninodes")["items"][0]["status"]
    until(lambda: remedy in str(installed.get("istiocninodes")), 30, "so does the node's status")
    assert status["state"] == "Installed"
    installed.install("--set=cni.repairMode=delete")
    installed.ready()
    node.kubectl(
        "wait", "--for=delete", f"pod/{pod['metadata']['name']}", "--namespace=shop", "--timeout=240s", within=250
    )
    again = started(node, "unredirected", injected=True)
    assert from_node(node, url(again)) == f"unredirected {ENVOY}"
    removed(node, "unredirected")


def test_upgrade_to_the_same_release_restarts_no_agent(installed: Release) -> None:
    def running() -> list[object]:
        pods = installed.get("pods")["items"]
        return [(pod["metadata"]["name"], pod["status"]["containerStatuses"]) for pod in pods]

    def asked_for() -> dict[str, int]:
        return {part: installed.get(part)["metadata"]["generation"] for part in PARTS}

    before = running(), asked_for()
    installed.install()
    assert (running(), asked_for()) == before


def test_resource_fields_of_the_daemonset_survive_upgrade_and_rollback(installed: Release) -> None:
    def agents() -> dict[str, str]:
        pods = installed.agents()
        return {pod["metadata"]["uid"]: pod["metadata"].get("annotations", {}).get("team", "") for pod in pods}

    before = agents()
    installed.steer(podAnnotations={"team": "edge"})
    until(lambda: [*agents().values()] == ["edge"], 60, "a pod with the annotation has taken its place")
    installed.ready()
    rolled = agents()
    assert rolled.keys() != before.keys()
    installed.install()
    installed.ready()
    assert agents() == rolled, "an upgrade starts no agent for it"
    installed.rollback()  # to what was rendered before the resource said it: a few agents may be replaced
    until(lambda: [*agents().values()] == ["edge"], 60, "the controller has written it again")
    installed.ready()
    installed.node.wait("jsonpath={.status.status.cni.status}=HEALTHY", f"icp/{RESOURCE}", f"--namespace={NAMESPACE}")
    installed.steer()
    until(lambda: [*agents().values()] == [""], 60, "what leaves the resource goes back")
    installed.ready()


def test_a_missing_directory_is_named_everywhere_and_correcting_it_repairs_the_node(
    node: KubernetesNode, installed: Release
) -> None:
    said = "FailedMount"
    remedy = "cniBinDir /opt/cni/nowhere is not on this node"
    installed.ask_for(cniBinDir="/opt/cni/nowhere")
    until(lambda: remedy in node.kubectl("get", "istiocninodes"), 120, "kubectl get istiocninodes names it")
    status = installed.get("istiocninodes")["items"][0]["status"]
    (ready,) = status["conditions"]
    assert (ready["status"], ready["reason"], status["state"]) == ("False", said, "Installed")
    assert "Set spec.values.cni.cniBinDir" in ready["message"]
    assert remedy in node.kubectl("get", "icp", RESOURCE, f"--namespace={NAMESPACE}", "--output=yaml")
    glance = installed.status()
    assert remedy in " ".join(glance.split())
    assert "Failed" in glance
    installed.steer()
    installed.ready()
    node.wait("condition=Ready", f"istiocninode/{NAME}")
    node.wait("jsonpath={.status.status.cni.status}=HEALTHY", f"icp/{RESOURCE}", f"--namespace={NAMESPACE}")
    assert installed.status().startswith("Healthy: 1 node redirects pods")
    meshed = started(node, "meshed", injected=True)
    assert from_node(node, url(meshed)) == f"meshed {ENVOY}"
    removed(node, "meshed")


def test_a_broken_conflist_is_named_with_its_remedy(node: KubernetesNode, installed: Release) -> None:
    remedy = f"{CONF_DIR}/00-broken.conflist is no valid network configuration: "
    broken = node.seen(CONF_DIR) / "00-broken.conflist"
    broken.write_text('{"cniVersion":')
    try:
        until(lambda: remedy in node.kubectl("get", "istiocninodes"), 60, "kubectl get istiocninodes names it")
        assert "InvalidConflist" in node.kubectl("get", "istiocninodes")
        assert remedy in " ".join(installed.status().split())
    finally:
        broken.unlink()
    until(lambda: "Redirecting" in node.kubectl("get", "istiocninodes"), 60, "it is named no more")
    until(lambda: node.plugins_loaded()[-1:] == ["istio-cni"], 30, "the runtime has loaded the spliced conflist again")
    node.wait("condition=Ready", f"node/{NAME}")
    installed.ready()


@pytest.mark.timeout(900)  # the agent starts four times
def test_a_directory_that_the_runtime_does_not_read_is_named_and_keeps_taint_and_pods(
    node: KubernetesNode, installed: Release
) -> None:
    old = node.seen(OLD_DIR)
    old.mkdir()
    conflist = old / "10-old.conflist"
    conflist.write_text(json.dumps(nodeconfig.conflist(nodeconfig.DEBIAN, nodeconfig.FIRST.pods)))
    steered = {"cniConfDir": str(OLD_DIR), "repairMode": "delete"}
    installed.install("--set=cni.repairMode=delete")
    installed.steer(**steered)
    until(lambda: "istio-cni" in conflist.read_text(), 90, "an agent looks after the other directory")
    installed.ready()
    node.write_primary()  # as its owner does when it starts: the entry of the agent before is gone
    until(lambda: "istio-cni" not in node.plugins_loaded(), 30, "the runtime has loaded it")
    loaded = conflist.stat().st_mtime + LOADED_WITHIN
    until(lambda: time.time() > loaded, 30, "a runtime that reads that directory would have loaded the entry")

    pods = {name: started(node, name, injected=True) for name in ("first", "second")}
    until(lambda: "ConflistNotLoaded" in node.kubectl("get", "istiocninodes"), 60, "kubectl get names it")
    (ready,) = installed.get("istiocninodes")["items"][0]["status"]["conditions"]
    assert (ready["status"], ready["reason"]) == ("False", "ConflistNotLoaded")
    said = f"does not load the plugin's entry in {OLD_DIR}/10-old.conflist"
    for told in (ready["message"], " ".join(installed.status().split())):
        assert said in told
        assert "set cniConfDir to the directory that it reads" in told
    node.kubectl("taint", "node", NAME, f"{KEY}:NoSchedule")
    node.apply(deployment("third", SHOP, injected=True))
    until(lambda: waits_for_the_taint(node, "third"), 30, "a third pod waits for the taint to go")
    for pod in pods.values():
        until(lambda pod=pod: "and is not deleted" in events_of(node, pod), 60, "an Event says so")  # type: ignore[misc]
    installed.steer(**steered, logLevel="debug")  # which writes the entry again
    generation = installed.get(f"icp/{RESOURCE}")["metadata"]["generation"]
    seen = f"jsonpath={{.status.observedGeneration}}={generation}"
    node.wait(seen, f"icp/{RESOURCE}", f"--namespace={NAMESPACE}")  # by then the controller has looked at taints again
    assert installed.get(f"icp/{RESOURCE}")["status"]["nodes"]["ready"] == 0
    assert taints(node) == [KEY]
    assert {name: pod_of(node, name)["metadata"]["uid"] for name in pods} == {
        name: pod["metadata"]["uid"] for name, pod in pods.items()
    }

    installed.steer(repairMode="delete")
    node.wait("condition=Ready", f"istiocninode/{NAME}", within=240)
    until(lambda: not taints(node), 60, "the taint is off")
    node.wait("condition=Available", "deployment/third", f"--namespace={SHOP}")
    for name in ("third", "first", "second"):  # these are deleted now, one after the other, as it helps

        def is_redirected(name: str = name) -> bool:
            with suppress(AssertionError, KeyError, ValueError):
                return from_node(node, url(pod_of(node, name))) == f"{name} {ENVOY}"
            return False

        until(is_redirected, 60, f"{name} is redirected")
    removed(node, "first", "second")
    node.kubectl("delete", "deployment/third", f"--namespace={SHOP}", "--cascade=foreground")
    shutil.rmtree(old)


def events_of(node: KubernetesNode, pod: dict[str, Any]) -> str:
    """Return the reasons and notes of a pod's Events."""
    uid = pod["metadata"]["uid"]
    told = [each for each in node.read("events", SHOP)["items"] if each["involvedObject"].get("uid") == uid]
    return "\n".join(f"{each['reason']}: {each['message']}" for each in told)


def pod_of(node: KubernetesNode, name: str) -> dict[str, Any]:
    """Return the one pod of an application's Deployment.

    Raises:
        ValueError: while there are more or none.
    """
    (pod,) = node.read("pods", SHOP, app=name)["items"]
    found: dict[str, Any] = pod
    return found


def test_deleting_the_resource_removes_the_plugin_and_applying_it_restores_it(
    node: KubernetesNode, installed: Release, before: dict[Path, Files]
) -> None:
    node.kubectl("delete", f"icp/{RESOURCE}", f"--namespace={NAMESPACE}", "--timeout=240s", within=250)
    assert all_files(node) == before
    plain = started(node, "plain", injected=False)
    assert from_node(node, url(plain)).startswith("plain 10.244.1.")
    installed.steer()
    installed.ready()
    assert all_files(node) != before
    meshed = started(node, "meshed", injected=True)
    assert from_node(node, url(meshed)) == f"meshed {ENVOY}"
    removed(node, "plain", "meshed")


def test_helm_uninstall_restores_the_node_before_it_returns(
    node: KubernetesNode, installed: Release, before: dict[Path, Files]
) -> None:
    sockets = node.seen(SOCKETS)
    assert all_files(node) != before
    assert [*sockets.iterdir()]
    installed.helm("uninstall", NAME_OF_RELEASE)
    assert all_files(node) == before
    assert not [*sockets.iterdir()]
    status = node.read(f"istiocninode/{NAME}")["status"]
    assert status["state"] == "Removed"
    hooks = "serviceaccounts,roles,rolebindings,jobs"
    assert "istio-cni" not in node.kubectl("get", hooks, f"--namespace={NAMESPACE}", "--output=name")
    assert started(node, "after", injected=False)["status"]["podIP"]
    removed(node, "after")


def test_after_an_uninstall_without_hooks_the_command_from_status_removes_the_plugin(
    node: KubernetesNode, installed: Release, before: dict[Path, Files]
) -> None:
    node.kubectl("delete", "clusterrolebinding/istio-cni-node")  # helm would, a moment before or after an agent asks
    installed.uninstall("--no-hooks")
    assert all_files(node) != before, "agents that cannot ask leave the plugin"
    said = " ".join(installed.status().split())
    assert f"kubectl debug node/{NAME} " in said
    command = said[said.index(f"debug node/{NAME} ") :].split(f"--from={BIN_DIR}")[0] + f"--from={BIN_DIR}"
    node.kubectl(*shlex.split(command.replace("--image=IMAGE", f"--image={HUB}/install-cni:{RELEASE}")))
    (pod,) = [each for each in node.kubectl("get", "pods", "--output=name").split() if "node-debugger" in each]
    node.wait("jsonpath={.status.phase}=Succeeded", pod)
    assert all_files(node) == before
    node.kubectl("delete", pod)
    assert started(node, "after", injected=False)["status"]["podIP"]
    removed(node, "after")
