"""The whole agent applies the IstioControlPlane as it runs, and reports in its IstioCNINode."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from installer.config.control_plane import GROUP, KIND, VERSION
from tests.kubernetes.conftest import ACCOUNT, PRIMARY, SOON, apply, entry, events, ready, report, resource, untouched
from tests.support.netns import Netns
from tests.support.wait import eventually, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kubernetes.conftest import Node
    from tests.support.agent import AgentProcess
    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver


def control_plane(cluster: Cluster, name: str = "mesh", *, enabled: bool = True, **cni: Any) -> None:
    spec = {"cni": {"enabled": enabled}} | ({"values": {"cni": cni}} if cni else {})
    metadata = {"name": name, "namespace": "default"}
    apply(cluster, {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": metadata, "spec": spec})


def test_a_change_of_the_resource_takes_effect_without_a_restart(
    cluster: Cluster, node: Node, running: AgentProcess
) -> None:
    control_plane(cluster, excludeNamespaces=["of-the-resource"], logLevel="debug", redirectBackend="iptables-nft")
    until(lambda: entry(running).get("exclude_namespaces") == ["of-the-resource"], SOON, "the conflist is rewritten")
    assert entry(running)["plugin_log_level"] == "debug"
    until(lambda: "iptables-nft" in running.get("/readyz")[1], SOON, "the backend is used")
    until(lambda: report(cluster, node).get("controlPlane", {}).get("name") == "mesh", SOON, "it is reported")
    assert "repairs_total 0.0" in running.get("/metrics")[1]
    control_plane(cluster)
    until(lambda: entry(running).get("plugin_log_level") == "info", SOON, "the chart's setting is back")
    assert running.process is not None
    assert running.process.poll() is None


def test_the_named_file_gets_the_entry_and_unchained_has_it_alone(
    cluster: Cluster, node: Node, running: AgentProcess
) -> None:
    other, alone = running.conf_dir / "20-other.conflist", running.conf_dir / "istio-cni.conf"
    other.write_text(PRIMARY)
    control_plane(cluster, cniConfFileName=other.name)
    until(lambda: "istio-cni" in other.read_text(), SOON, "the entry is in the file that is named")
    until(lambda: not entry(running), SOON, "and not in the one of before")
    control_plane(cluster, chained=False)
    until(alone.exists, SOON, "it has a configuration of its own")
    assert json.loads(alone.read_bytes())["type"] == "istio-cni"
    until(lambda: other.read_text() == PRIMARY, SOON, "others are as they were")
    control_plane(cluster)
    until(lambda: entry(running), SOON, "the runtime's configuration has it again")
    until(lambda: not alone.exists(), SOON, "and nothing else")


def test_an_own_conflist_comes_and_goes_with_the_resource(cluster: Cluster, node: Node, running: AgentProcess) -> None:
    primary, own = running.conf_dir / "10-k8s.conflist", running.conf_dir / "02-istio-cni.conflist"
    control_plane(cluster, istioOwnedCNIConfig=True)
    until(lambda: own.exists() and primary.read_text() == PRIMARY, SOON, "the entry is in a list of its own alone")
    until(lambda: report(cluster, node).get("conflist", {}).get("form") == "Owned", SOON, "it is reported")
    control_plane(cluster, istioOwnedCNIConfig=True, istioOwnedCNIConfigFileName="01-mine.conflist")
    until(lambda: not own.exists(), SOON, "it is renamed")
    assert json.loads((running.conf_dir / "01-mine.conflist").read_bytes())["plugins"][-1]["type"] == "istio-cni"
    control_plane(cluster)
    until(lambda: entry(running), SOON, "the runtime's configuration has it again")
    until(lambda: not (running.conf_dir / "01-mine.conflist").exists(), SOON, "and nothing else")


async def test_defaults_of_the_resource_apply_to_the_next_pod(
    cluster: Cluster, node: Node, running: AgentProcess, tmp_path: Path
) -> None:
    uid = node.start_pod("web")
    await eventually(lambda: "istio_cni_pods 1.0" in running.get("/metrics")[1], SOON, "the pod is known")

    async def rules_of_the_next() -> str:
        with Netns(tmp_path / "netns") as netns:
            answer = await running.add(netns, "default", "web", uid)
            assert answer.status == 0, answer.stdout
            return netns.rules()

    before = await rules_of_the_next()
    assert "redirect to :15001" in before
    assert "chain ISTIO_INBOUND" not in before, "it declares no ports"
    assert "table ip6 " not in before
    control_plane(cluster, inboundPortsDefault="*", ipv6="always", logLevel="debug")
    await eventually(lambda: entry(running).get("plugin_log_level") == "debug", SOON, "it is in force")
    after = await rules_of_the_next()
    assert "chain ISTIO_INBOUND" in after
    assert "table ip6 " in after
    control_plane(cluster, logLevel="error")
    await eventually(lambda: entry(running).get("plugin_log_level") == "error", SOON, "it is in force")
    written = running.log.stat().st_size
    await rules_of_the_next()
    assert running.log.stat().st_size == written, "the agent itself logs no more than that"


def test_invalid_resource_keeps_the_last_good_settings_and_is_reported(
    cluster: Cluster, node: Node, running: AgentProcess
) -> None:
    control_plane(cluster, excludeNamespaces=["good"])
    until(lambda: entry(running).get("exclude_namespaces") == ["good"], SOON, "the good one is in force")
    control_plane(cluster, excludeNamespaces=["bad"], logLevl="info")
    said = "spec.values.cni.logLevl: no such value; is logLevel meant?"
    until(lambda: said in json.dumps(report(cluster, node)), SOON, "the node says what is wrong")
    assert entry(running)["exclude_namespaces"] == ["good"]
    assert ready(cluster, node)[0] == "True"


def test_last_good_settings_are_kept_when_the_agent_is_replaced(
    cluster: Cluster, node: Node, running: AgentProcess
) -> None:
    control_plane(cluster, excludeNamespaces=["good"])
    until(lambda: entry(running).get("exclude_namespaces") == ["good"], SOON, "the good one is in force")
    control_plane(cluster, excludeNamespaces=["bad"], logLevl="info")
    until(lambda: "is logLevel meant?" in json.dumps(report(cluster, node)), SOON, "the node says what is wrong")
    assert running.stop() == 0
    running.start()
    running.ready()
    until(lambda: "is logLevel meant?" in running.log.read_text().rpartition("health")[2], SOON, "it has heard of it")
    assert entry(running)["exclude_namespaces"] == ["good"]


def test_a_removed_plugin_stays_out_when_the_agent_is_replaced_in_an_outage(
    cluster: Cluster, node: Node, running: AgentProcess
) -> None:
    control_plane(cluster, enabled=False)
    until(lambda: untouched(running), SOON, "all is taken out")
    cluster.kill_apiserver()
    try:
        assert running.stop() == 0
        running.start()
        until(lambda: "enabled: false" in running.get("/readyz")[1], SOON, "it knows that from the one before")
        assert untouched(running)
    finally:
        cluster.start_apiserver()
    control_plane(cluster)
    until(lambda: entry(running), SOON, "it is put back")


def test_the_report_shows_the_nodes_state(cluster: Cluster, node: Node, running: AgentProcess) -> None:
    until(lambda: ready(cluster, node) == ("True", "Redirecting"), SOON, "it is ready")
    status = report(cluster, node)
    assert status["state"] == "Installed"
    assert status["conflist"] == {"directory": str(running.conf_dir), "file": "10-k8s.conflist", "form": "Chained"}
    assert status["plugin"]["path"] == str(running.bin_dir / "istio-cni")
    assert status["backend"] == {"name": "nft"}
    assert {each["name"] for each in status["preflight"]} == {"nft", "iptables-nft", "iptables-legacy"}
    owner = cluster.admin.read(resource(node))["metadata"]["ownerReferences"]
    assert [(each["kind"], each["name"]) for each in owner] == [("Node", node.name)]
    (running.conf_dir / "10-k8s.conflist").write_text(PRIMARY)
    until(lambda: "istio_cni_repairs_total 1.0" in running.get("/metrics")[1], SOON, "it is repaired")
    (running.conf_dir / "05-broken.conflist").write_text('{"cniVersion": "1.0.0"')
    until(
        lambda: "05-broken.conflist is no valid" in json.dumps(report(cluster, node)), SOON, "the broken file is told"
    )
    assert report(cluster, node)["repairs"]["count"] == 1, "and with it what is no reason to write by itself"
    (running.conf_dir / "10-k8s.conflist").unlink()
    until(lambda: ready(cluster, node) == ("False", "NotInstalled"), SOON, "it is not ready")
    until(lambda: "NotInstalled" in dict(events(cluster, node.name)), SOON, "an Event tells")


def test_a_report_is_written_only_on_change(cluster: Cluster, node: Node, running: AgentProcess) -> None:
    until(lambda: ready(cluster, node)[0] == "True", SOON, "it is ready")

    def writes() -> int:
        mine = [each for each in cluster.requests_of(ACCOUNT) if each.get("objectRef", {}).get("name") == node.name]
        return sum(each["verb"] in ("create", "update", "patch") for each in mine)

    before = writes()
    with pytest.raises(AssertionError, match="nothing is written"):
        until(lambda: writes() > before, 2, "nothing is written")


def test_enabled_false_removes_the_plugin_and_keeps_the_agent(
    cluster: Cluster, node: Node, running: AgentProcess
) -> None:
    control_plane(cluster, enabled=False)
    until(lambda: untouched(running), SOON, "all is taken out")
    until(lambda: ready(cluster, node) == ("False", "Removed"), SOON, "it is reported")
    status, text = running.get("/readyz")
    assert status == 200, text
    assert "enabled: false" in text
    control_plane(cluster)
    until(lambda: entry(running), SOON, "it is put back")


def test_deleting_the_resource_removes_the_plugin_for_good(cluster: Cluster, node: Node, running: AgentProcess) -> None:
    control_plane(cluster)
    until(lambda: report(cluster, node).get("controlPlane"), SOON, "the resource is applied")
    cluster.kubectl("delete", "icp", "mesh", "--namespace=default")
    until(lambda: untouched(running), SOON, "all is taken out")
    until(lambda: report(cluster, node)["state"] == "Removed", SOON, "it is reported")
