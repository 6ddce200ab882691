"""The agent as Istio's own chart, rendered by helm and unchanged, starts it: its environment, mounts, capabilities and role."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from installer.agent.shutdown import STOP_WITHIN
from tests.chart.contained import ACCOUNT, CONFLIST, NAMESPACE, apply, contained, forwarded_api
from tests.chart.istio_chart import IstiosChart
from tests.kubernetes.conftest import PRIMARY, SOON, Node, entry, untouched
from tests.support.netns import Netns
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.support.cluster import Cluster
    from tests.support.contained import ContainedAgent

pytestmark = pytest.mark.apiserver

POD_IP = "10.9.0.1"
_V1 = Path("/sys/fs/cgroup/pids")
CGROUPS = _V1 if _V1.is_dir() else Path("/sys/fs/cgroup")
ADDRESS = "10.9.0.7"


class Start(Protocol):
    """Starts an agent with values of Istio's chart."""

    def __call__(self, values: Mapping[str, Any]) -> ContainedAgent:
        """Start it without waiting for anything."""


@pytest.fixture(scope="module")
def account(cluster: Cluster) -> None:
    """The namespace of the release; it stays for others, as no controller would ever finish its deletion."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    cluster.kubectl("apply", "--server-side", "--filename=-", text=json.dumps(namespace))


@pytest.fixture
def start(tmp_path: Path, cluster: Cluster, node: Node, account: None) -> Iterator[Start]:
    """Starts one agent, and ends it."""
    with Netns(tmp_path / "own") as network, forwarded_api(network, cluster):
        for command in ("link set lo up", "link add eth0 type veth peer name peer", f"address add {POD_IP}/24 dev eth0",
                        "address add fd09::1/64 dev eth0 nodad", "link set eth0 up"):  # fmt: skip
            subprocess.run([*network.entered, "/usr/sbin/ip", *command.split()], check=True)
        started: list[ContainedAgent] = []

        def begin(values: Mapping[str, Any]) -> ContainedAgent:
            chart = IstiosChart(tmp_path, values)
            apply(cluster, chart)
            started.append(contained(tmp_path, network, cluster, node.name, chart))
            (tmp_path / "conf" / CONFLIST).write_text(PRIMARY)
            return started[-1].start()

        yield begin
        for agent in started:
            agent.stop(within=STOP_WITHIN)
    for kind in ("clusterrole", "clusterrolebinding"):
        cluster.kubectl(
            "delete", kind, "istio-cni", "istio-cni-repair-role", "istio-cni-repair-rolebinding", "--ignore-not-found"
        )


def revoke(cluster: Cluster) -> None:
    """Take the rights away, as `helm uninstall` does."""
    cluster.kubectl("delete", "clusterrolebinding", "istio-cni", "istio-cni-repair-rolebinding", "--ignore-not-found")
    cluster.kubectl("delete", "clusterrole", "istio-cni", "istio-cni-repair-role", "--ignore-not-found")


@contextmanager
def process(*, cgroup: str = "", address: str = ADDRESS) -> Iterator[int]:
    """Run a process in a network namespace of its own with an address, in a cgroup of a pod; yield its id."""
    running = subprocess.Popen(["/usr/bin/unshare", "--net", "/bin/sleep", "600"])
    folder = CGROUPS / f"tests-{running.pid}" / cgroup
    try:
        until(
            lambda: Path(f"/proc/{running.pid}/ns/net").stat().st_ino != Path("/proc/self/ns/net").stat().st_ino,
            SOON,
            "own",
        )
        for command in (
            "link add eth0 type veth peer name peer",
            f"address add {address}/24 dev eth0",
            "link set eth0 up",
        ):
            subprocess.run([*into(running.pid), "/usr/sbin/ip", *command.split()], check=True)
        if cgroup:
            folder.mkdir(parents=True)
            (folder / "cgroup.procs").write_text(str(running.pid))
        yield running.pid
    finally:
        running.kill()
        running.wait()
        if cgroup:
            until(lambda: removed(folder), SOON, "its cgroup is free")


def removed(folder: Path) -> bool:
    """Remove an empty cgroup and those around it, which the kernel may hold for a moment after their last process."""
    while folder != CGROUPS:
        try:
            folder.rmdir()
        except OSError:
            return False
        folder = folder.parent
    return True


def into(pid: int) -> list[str]:
    return ["/usr/bin/nsenter", f"--target={pid}", "--net"]


def rules(pid: int) -> str:
    return subprocess.run(
        [*into(pid), "/usr/sbin/nft", "list", "ruleset"], capture_output=True, text=True, check=True
    ).stdout


def run_pod(cluster: Cluster, node: Node, name: str) -> str:
    """Have the API server know a running pod with the address, and return its uid."""
    uid = node.start_pod(name)
    status = {"status": {"phase": "Running", "podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}]}}
    cluster.core.patch_namespaced_pod_status(name, "default", status)
    return uid


def add(agent: ContainedAgent, pid: int, name: str, uid: str) -> dict[str, Any]:
    """Call the installed plugin file for a pod as the container runtime does, with the entry of the conflist."""
    config = entry(agent)
    del config["capabilities"]
    config |= {
        "cniVersion": "1.0.0",
        "name": "k8s",
        "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": f"{ADDRESS}/24"}]},
        "runtimeConfig": {"io.kubernetes.cri.pod-annotations": {"sidecar.istio.io/status": "{}"}},
    }
    environment = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "0123456789abcdef",
        "CNI_NETNS": f"/proc/{pid}/ns/net",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": f"K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};K8S_POD_UID={uid}",
    }
    command = [*agent.inside, "/host/opt/cni/bin/istio-cni"]
    done = subprocess.run(
        command, input=json.dumps(config), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_an_add_redirects_all_inbound_ports(start: Start, node: Node) -> None:
    agent = start({})
    assert agent.ready().startswith("ready: 10-k8s.conflist in /host/etc/cni/net.d has istio-cni")
    uid = node.start_pod("web")
    with process() as pid:
        add(agent, pid, "web", uid)
        assert "redirect to :15006" in rules(pid)
        assert "redirect to :15001" in rules(pid)


def test_readyz_and_metrics_are_at_its_ports_and_say_what_is_left_out(start: Start) -> None:
    agent = start({"env": {"MONITORING_PORT": "15999"}})
    agent.ready()
    for host in (POD_IP, "[fd09::1]"):
        status, text = agent.ask(f"http://{host}:8000/readyz")
        assert status == 200
        assert "chart: ok, Istio's own; left out: IstioControlPlane, IstioCNINode and RuntimeClasses: its role" in text
        assert "istio_cni_pods 0.0" in agent.ask(f"http://{host}:15999/metrics")[1]
    lines = [json.loads(line) for line in agent.log.read_text().splitlines()]
    (said,) = [each for each in lines if each["msg"].startswith("running in Istio's own chart")]
    assert "its role does not allow them" in said["reason"]
    assert {each["msg"] for each in lines if each["level"] in ("warn", "error")} <= {
        said["msg"],
        "not installed",
    }


def test_no_request_is_refused(start: Start, cluster: Cluster, node: Node) -> None:
    agent = start({})
    agent.ready()
    uid = run_pod(cluster, node, "running")
    with process(cgroup=f"pod{uid}"):
        until(lambda: cluster_events(cluster, "running"), SOON, "an Event says that it is repaired")
    account = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
    answered = [*cluster.requests_of(account, stage="ResponseComplete")]
    assert answered
    assert [each["requestURI"] for each in answered if each["responseStatus"]["code"] in (401, 403)] == []


def cluster_events(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    found = cluster.admin.read("/api/v1/namespaces/default/events")["items"]
    return [each for each in found if each["involvedObject"].get("name") == name]


def test_a_running_pod_is_redirected_through_proc(start: Start, cluster: Cluster, node: Node) -> None:
    uid = run_pod(cluster, node, "early")
    with process(cgroup=f"kubepods-burstable-pod{uid.replace('-', '_')}.slice") as pid:
        start({}).ready()
        until(lambda: "redirect to :15006" in rules(pid), SOON, "the pod has rules")
        until(lambda: cluster_events(cluster, "early"), SOON, "an Event says so")
    (event,) = cluster_events(cluster, "early")
    assert (event["reason"], event["type"]) == ("Redirected", "Normal")
    assert event["reportingComponent"] == "istio-cni-node"


def test_no_other_network_with_its_address_is_mistaken_for_it(start: Start, cluster: Cluster, node: Node) -> None:
    uid = run_pod(cluster, node, "victim")
    other = node.start_pod("other")
    with process() as foreign, process(cgroup=f"pod{other}/pod{uid}") as pretender:
        agent = start({})
        agent.ready()
        until(lambda: "istio_cni_pods 2.0" in agent.ask(f"http://{POD_IP}:15014/metrics")[1], SOON, "both are known")
        with process(cgroup=f"pod{uid}") as pid:
            until(lambda: "redirect to :15006" in rules(pid), SOON, "the pod itself has rules")
        assert rules(foreign) == rules(pretender) == ""


@pytest.mark.parametrize(
    "values", [{"repair": {"enabled": False}}, {"repair": {"repairPods": False, "deletePods": True}}]
)
def test_without_repair_nothing_running_is_touched(
    values: Mapping[str, Any], start: Start, cluster: Cluster, node: Node
) -> None:
    uid = run_pod(cluster, node, "early")
    with process(cgroup=f"pod{uid}") as pid:
        agent = start(values)
        agent.ready()
        later = node.start_pod("later")
        with process() as other:
            add(agent, other, "later", later)
            assert "redirect to :15006" in rules(other)
        assert rules(pid) == ""


def test_an_uninstall_of_the_chart_leaves_nothing(start: Start, cluster: Cluster) -> None:
    agent = start({})
    agent.ready()
    revoke(cluster)
    assert agent.stop(within=STOP_WITHIN) == 0
    assert untouched(agent), agent.log.read_text()
    assert [*(agent.root.parent / "run" / "istio-cni").iterdir()] == []
    assert "the chart is uninstalled" in agent.log.read_text()


def test_an_agent_that_is_replaced_leaves_all_in_place(start: Start) -> None:
    agent = start({})
    agent.ready()
    assert agent.stop(within=STOP_WITHIN) == 0
    assert entry(agent)
    assert (agent.bin_dir / "istio-cni").exists()


def test_a_configuration_that_is_not_roots_is_written(start: Start, tmp_path: Path) -> None:  # without CHOWN
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "10-k8s.conflist").write_text(PRIMARY)
    os.chown(tmp_path / "conf" / "10-k8s.conflist", 1000, 1000)
    agent = start({})
    agent.ready()
    assert entry(agent)
    (lost,) = [line for line in agent.log.read_text().splitlines() if "the owner of the file is lost" in line]
    assert json.loads(lost)["uid"] == 1000


def test_ambient_mode_is_refused(start: Start) -> None:
    agent = start({"ambient": {"enabled": True}})
    assert agent.process
    assert agent.process.wait(SOON) == 1
    assert "Error: AMBIENT_ENABLED: saw true, expected false" in agent.log.read_text()
    assert untouched(agent)
