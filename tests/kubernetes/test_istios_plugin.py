"""The plugins of this agent and of Istio's own with each other's entry, as between the files that the other agent replaces."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from installer.config.istio_chart import MOUNTS, translate
from installer.config.settings import build_entry
from tests.kubernetes.conftest import NAMESPACE, entry
from tests.kubernetes.test_side_by_side import PATIENCE, PROGRAM, owner
from tests.kubernetes.test_side_by_side import both as both  # noqa: PLC0414 - a fixture
from tests.race.stage import POD_NETWORK
from tests.support.call import Answer, Plugin
from tests.support.netns import Netns
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.kubernetes.conftest import Node
    from tests.support.agent import AgentProcess
    from tests.support.contained import ContainedAgent

    Both = tuple[AgentProcess, ContainedAgent]

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(900)]

PREV = {"cniVersion": "1.0.0", "ips": [{"address": "10.244.0.7/24"}, {"address": "fd00:244::7/64"}]}
# What the entry of Istio's agent has besides: of ambient mode, and what libcni does not read in an entry of a list.
OF_NO_USE = {"ambient_enabled", "enablement_selectors", "enable_ambient_detection_retry", "name", "dns", "ipam"}


class Pods(NamedTuple):
    """Makes network namespaces, and calls a plugin for pods in them."""

    folder: Path
    file: Path

    async def add(
        self, config: Mapping[str, Any], netns: Netns, name: str = "web", namespace: str = "default", mounted: str = ""
    ) -> Answer:
        """Call the plugin that is in cniBinDir, as the runtime does; `mounted` is what it sees as /run."""
        environment = {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": "0123456789abcdef",
            "CNI_NETNS": str(netns.path),
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}",
            "CNI_PATH": str(self.file.parent),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        own = ("/usr/bin/unshare", "--mount", "--propagation=private", "/bin/sh", "-ec")
        command = (*own, f"mount --bind {mounted} /run; exec {self.file}") if mounted else (str(self.file),)
        plugin = Plugin("installed", command, self.folder, chrooted=False)
        given = {key: value for key, value in config.items() if key != "capabilities"}
        return await plugin(environment, given | {"cniVersion": "1.0.0", "name": "k8s", "prevResult": PREV})

    @contextmanager
    def netns(self, name: str) -> Iterator[Netns]:
        """Make one as the plugins before leave it."""
        with Netns(self.folder / name) as made:
            subprocess.run([*made.entered, "/usr/sbin/ip", "-batch", "-"], input=POD_NETWORK, text=True, check=True)
            yield made


@pytest.fixture
def pods(tmp_path: Path, both: Both) -> Pods:
    return Pods(tmp_path, both[0].bin_dir / "istio-cni")


def gives_back(both: Both) -> dict[str, Any]:
    """Have Istio's agent replace ours; return our entry, which a runtime may know yet."""
    ours, _ = both
    ours.start().ready()
    mine = entry(ours)
    ours.stop()
    begin(both)
    until(lambda: owner(ours) == "istios", PATIENCE, "Istio's agent has installed")
    return mine


def begin(both: Both) -> None:
    """Start Istio's agent as the kubelet does, which makes the folder that our agent has taken away with its socket."""
    ours, istios = both
    ours.socket.parent.mkdir(parents=True, exist_ok=True)
    istios.start()


def istios_entry(both: Both) -> dict[str, Any]:
    """Return the entry that Istio's agent has written, with the path that the node has for its folder."""
    ours, _ = both
    return entry(ours) | {"cni_agent_run_dir": str(ours.socket.parent)}


def redirect(netns: Netns) -> str:
    """Return the rules of all backends, without counters, comments and times."""
    saved = [
        subprocess.run([*netns.entered, f"/usr/sbin/{each}-save"], capture_output=True, text=True, check=True).stdout
        for each in ("iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy")
    ]
    lines = [line.partition(" [")[0] for text in saved for line in text.splitlines() if not line.startswith("#")]
    return "\n".join([netns.rules(), *lines])


def is_redirected(netns: Netns) -> bool:
    """Say whether rules lead to the sidecar, in and out."""
    return all(re.search(rf"(redirect to :|--to-ports ){port}\b", redirect(netns)) for port in (15001, 15006))


@pytest.mark.parametrize("backend", ["auto", "nft"])
async def test_istios_plugin_takes_our_entry_as_its_own(both: Both, node: Node, pods: Pods, backend: str) -> None:
    both[0].set("redirect-backend", backend)
    both[0].set("exclude-namespaces", "kube-system")
    mine = gives_back(both)
    its = istios_entry(both) | {"native_nftables": backend == "nft"}
    assert its["exclude_namespaces"] == ["kube-system"]
    node.start_pod("web")
    node.start_pod("web", namespace="kube-system")
    with pods.netns("one") as one, pods.netns("other") as other, pods.netns("excluded") as excluded:
        for config, netns in ((its, other), (mine, one)):
            answer = await pods.add(config, netns)
            assert (answer.status, answer.json.get("ips")) == (0, PREV["ips"]), answer
            assert is_redirected(netns)
        assert redirect(one) == redirect(other)
        assert ("table inet" in one.rules()) == (backend == "nft")
        assert (await pods.add(mine, excluded, namespace="kube-system")).status == 0
        assert redirect(excluded) == ""


def test_in_istios_chart_our_entry_says_what_istios_says(both: Both, tmp_path: Path) -> None:
    spec = json.loads((tmp_path / "spec.json").read_text())  # of the container of Istio's agent
    said = build_entry(translate(spec["command"][len(PROGRAM) :], spec["environment"], MOUNTS).settings)
    begin(both)
    until(lambda: owner(both[0]) == "istios", PATIENCE, "Istio's agent has installed")
    expected = {key: value for key, value in entry(both[0]).items() if key not in OF_NO_USE}
    assert {key: said.get(key) for key in expected} == expected


async def test_until_its_kubeconfig_is_there_istios_plugin_lets_its_own_agent_pass_alone(
    both: Both, pods: Pods
) -> None:
    mine = gives_back(both)
    its = istios_entry(both)
    both[1].stop(signal.SIGKILL)
    (both[0].socket.parent / "istio-cni-kubeconfig").unlink()
    with pods.netns("one") as netns:
        for config, namespace in ((mine, NAMESPACE), (its, its["pod_namespace"])):
            failed = await pods.add(config, netns)
            assert failed.status == 1
            assert failed.json["msg"].startswith("failed to createNewK8sClient"), failed
            answer = await pods.add(config, netns, "istio-cni-node-x7k2p", namespace)
            assert (answer.status, answer.json.get("ips")) == (0, PREV["ips"]), answer


async def test_a_call_that_waits_is_answered_by_istios_plugin_once_its_agent_has_installed_it(
    both: Both, node: Node, pods: Pods
) -> None:
    ours, _ = both
    ours.start().ready()
    mine = entry(ours)
    ours.stop()
    node.start_pod("web")
    with pods.netns("one") as netns:
        call = asyncio.create_task(pods.add(mine, netns))
        await asyncio.sleep(0.5)
        assert not call.done()
        begin(both)
        answer = await call
        assert (answer.status, answer.json.get("ips")) == (0, PREV["ips"]), answer
        assert is_redirected(netns)


async def test_our_plugin_takes_istios_entry(both: Both, node: Node, pods: Pods) -> None:
    ours, istios = both
    istios.start()
    until(lambda: owner(ours) == "istios", PATIENCE, "Istio's agent has installed")
    its = entry(ours)
    ours.start().ready(PATIENCE)
    until(lambda: owner(ours) == "ours", PATIENCE, "ours has replaced it")
    node.start_pod("web")
    with pods.netns("one") as netns:
        answer = await pods.add(its, netns, mounted=str(ours.socket.parent.parent))
        assert (answer.status, answer.json.get("ips")) == (0, PREV["ips"]), answer
        assert is_redirected(netns)
