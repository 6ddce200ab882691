"""The whole agent as a process: it installs, serves the frozen plugin, repairs, stops and is uninstalled."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.plugin.conftest import manifest, rules
from tests.support.agent import AgentProcess
from tests.support.call import FROZEN, Plugin
from tests.support.netns import Netns
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.kernel

PRIMARY = b'{\n  "cniVersion": "1.0.0",\n  "name": "k8s",\n  "plugins": [\n    {"type": "bridge"}\n  ]\n}\n'


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    for name in ("conf", "bin", "pods"):
        (tmp_path / name).mkdir()
    (tmp_path / "conf" / "10-k8s.conflist").write_bytes(PRIMARY)
    ports = {"traffic.sidecar.istio.io/includeInboundPorts": "*"}
    pod = {"apiVersion": "v1", "kind": "Pod"} | manifest(**ports)
    (tmp_path / "pods" / "web.json").write_text(json.dumps(pod))
    made = AgentProcess(
        tmp_path, conf_dir=tmp_path / "conf", bin_dir=tmp_path / "bin", options={"pods-from": tmp_path / "pods"}
    )
    with made:
        yield made


async def test_a_pod_is_redirected_by_what_the_agent_installed(agent: AgentProcess, tmp_path: Path) -> None:
    assert "ready: 10-k8s.conflist" in agent.ready()
    assert agent.get("/readyz")[0] == agent.get("/healthz")[0] == 200
    assert (tmp_path / "bin" / "istio-cni").read_bytes() == FROZEN.read_bytes()
    with Netns(tmp_path / "netns") as netns:
        answer = await agent.add(netns, "shop", "web")
        assert answer.status == 0, answer.stdout
        assert "redirect to :15006" in rules(netns)
    until(
        lambda: 'istio_cni_requests_total{command="ADD",outcome="redirect"} 1.0' in agent.get("/metrics")[1],
        10,
        "counted",
    )


@pytest.mark.slow
async def test_a_copy_of_the_entry_held_by_multus_stops_no_pod_and_redirects_once(
    agent: AgentProcess, tmp_path: Path
) -> None:  # F34
    agent.ready()
    conflist = tmp_path / "conf" / "10-k8s.conflist"
    multus = {
        "cniVersion": "1.0.0",
        "name": "multus",
        "type": "multus",
        "delegates": [json.loads(conflist.read_bytes())],
    }
    (tmp_path / "multus.conf").write_text(json.dumps(multus))
    with Netns(tmp_path / "netns") as netns:
        once = await agent.add(netns, "shop", "web")
        written = rules(netns)
        twice = await agent.add(netns, "shop", "web")
        assert (once.status, twice.status) == (0, 0)
        assert once.json == twice.json
        assert rules(netns) == written
    agent.stop()
    (tmp_path / "multus.conf").replace(tmp_path / "conf" / "00-multus.conf")
    done = agent.uninstall()
    assert done.returncode == 1
    assert f"{tmp_path}/bin/istio-cni stays, as it is named in {tmp_path}/conf/00-multus.conf: " in done.stderr
    assert conflist.read_bytes() == PRIMARY
    (tmp_path / "spliced").mkdir()
    copy = multus["delegates"][0]
    (tmp_path / "spliced" / "x.conflist").write_text(json.dumps(copy))
    agent.conf_dir = tmp_path / "spliced"
    with Netns(tmp_path / "netns") as netns:
        meshed = await agent.add(netns, "shop", "web")
        assert "If istio-cni was uninstalled, a network configuration of this node still names it" in meshed.json["msg"]
        assert (await agent.add(netns, "shop", "plain", annotations={})).status == 0, (
            "other pods start without an agent"
        )
    plugin = Plugin("kept", (str(tmp_path / "bin" / "istio-cni"),), tmp_path, chrooted=False)
    for command in ("DEL", "GC"):
        ended = await plugin({"CNI_COMMAND": command})
        assert (ended.status, ended.stdout) == (0, b"")


async def test_redirected_families_and_their_reason_are_logged(agent: AgentProcess, tmp_path: Path) -> None:
    agent.ready()
    with Netns(tmp_path / "netns") as netns:
        for addresses in (("10.1.2.3/24",), ("fd00::7/64",)):
            answer = await agent.add(netns, "shop", "web", addresses=addresses)
            assert answer.status == 0, answer.stdout
    log = agent.log.read_text
    until(lambda: "IPv4 and IPv6, as it has the address fd00::7" in log(), 10, "the second is logged")
    metrics = agent.get("/metrics")[1]
    assert 'istio_cni_redirected_families_total{family="ipv4"} 2.0' in metrics
    assert 'istio_cni_redirected_families_total{family="ipv6"} 1.0' in metrics
    assert "istio_cni_ipv6_off_total 0.0" in metrics
    assert "IPv4, as its first address is 10.1.2.3 and ISTIO_DUAL_STACK is not true" in log()


async def test_ipv6_turned_off_is_logged_at_the_default_level(agent: AgentProcess, tmp_path: Path) -> None:
    agent.set("log-level", "warn")
    agent.stop()
    agent.start().ready()
    with Netns(tmp_path / "netns") as netns:
        listed(netns, "sysctl -w net.ipv6.conf.lo.disable_ipv6=1")
        answer = await agent.add(netns, "shop", "web", addresses=("fd00::7/64",))
        assert answer.status == 0, answer.stdout
        assert "table ip6 istio-cni-nat" in rules(netns)
    said = "net.ipv6.conf.*.disable_ipv6 is 1 in its netns for lo"
    until(lambda: said in agent.log.read_text(), 10, "it is logged")
    assert "istio_cni_ipv6_off_total 1.0" in agent.get("/metrics")[1]


async def test_a_kernel_without_ipv6_is_logged_and_redirects_ipv4(agent: AgentProcess, tmp_path: Path) -> None:
    """The agent runs in a mount namespace that hides the kernel's sysctls from it alone."""
    agent.stop()
    (tmp_path / "none").mkdir()
    hide = f'mount --bind {tmp_path}/none /proc/sys/net && exec "$@"'
    agent.prefix = ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", hide, "sh"]
    agent.start().ready()
    absent = "this node's kernel has no IPv6: saw no /proc/sys/net/ipv6"
    assert f"no ipv6: {absent}" in agent.get("/readyz")[1]
    with Netns(tmp_path / "netns") as netns:
        assert (await agent.add(netns, "shop", "web")).status == 0
        assert "table ip6" not in rules(netns)
        refused = await agent.add(netns, "shop", "web", addresses=("fd00::7/64",))
        assert (refused.status, refused.json["code"]) == (1, 100)
        assert absent in refused.json["msg"]


def listed(netns: Netns, command: str) -> str:
    entered = ["/usr/bin/nsenter", f"--net={netns.path}", *f"/usr/sbin/{command}".split()]
    return subprocess.run(entered, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("backend", ["nft", "iptables-nft", "iptables-legacy"])
async def test_the_requested_backend_is_used_and_logged(agent: AgentProcess, tmp_path: Path, backend: str) -> None:
    agent.options += ["--redirect-backend", backend]
    agent.stop()
    agent.start().ready()
    assert f"redirecting: ok, by {backend} (has all features)\n" in agent.get("/readyz")[1]
    metrics = agent.get("/metrics")[1]
    assert f'istio_cni_backend{{backend="{backend}"}} 1.0' in metrics
    assert f'istio_cni_backend_feature{{backend="{backend}",feature="tproxy"}} 1.0' in metrics
    assert f'"backend": "{backend}"' in agent.log.read_text()
    with Netns(tmp_path / "netns") as netns:
        answer = await agent.add(netns, "shop", "web")
        assert answer.status == 0, answer.stdout
        assert "ISTIO_IN_REDIRECT" in listed(netns, "nft list ruleset" if backend == "nft" else f"{backend}-save")


@pytest.mark.parametrize("backend", ["auto", "iptables-legacy"])
async def test_a_backend_that_the_node_lacks_is_reported(tmp_path: Path, agent: AgentProcess, backend: str) -> None:
    """The agent runs in a mount namespace that hides the legacy variant's tools from it alone."""
    agent.stop()
    hide = 'mount --bind /dev/null /usr/sbin/xtables-legacy-multi && exec "$@"'
    agent.prefix = ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", hide, "sh"]
    agent.options += ["--redirect-backend", backend]
    agent.start()
    if backend == "auto":
        agent.ready()
        assert "redirecting: ok, by nft (has all features)\n" in agent.get("/readyz")[1]
        assert 'istio_cni_backend_feature{backend="iptables-legacy",feature="nat"} 0.0' in agent.get("/metrics")[1]
    else:
        until(lambda: "iptables-legacy-save cannot be run" in agent.log.read_text(), 10, "it says what is missing")
        until(agent.socket.exists, 10, "it serves all the same")
        status, conditions = agent.get("/readyz")
        assert status == 503
        assert "redirecting: the rules could not be applied: /usr/sbin/iptables-legacy-save cannot be run" in conditions


async def test_an_overwritten_conflist_is_repaired_and_uninstall_restores_its_bytes(
    agent: AgentProcess, tmp_path: Path
) -> None:
    agent.ready()
    conflist = tmp_path / "conf" / "10-k8s.conflist"
    stomped = PRIMARY.replace(b'"k8s"', b'"changed"')
    fresh = conflist.with_name(".primary")
    fresh.write_bytes(stomped)
    fresh.replace(conflist)
    until(lambda: b"istio-cni" in conflist.read_bytes(), 10, "the repair")
    assert agent.stop() == 0
    assert b"istio-cni" in conflist.read_bytes()  # stopping is not uninstalling (F7)
    done = agent.uninstall()
    assert done.returncode == 0, done.stderr
    assert conflist.read_bytes() == stomped
    assert list((tmp_path / "bin").iterdir()) == []


async def test_a_mesh_pod_waits_for_the_next_agent_after_a_kill(agent: AgentProcess, tmp_path: Path) -> None:
    agent.ready()
    agent.stop(signal.SIGKILL)
    with Netns(tmp_path / "netns") as netns:
        plain = await agent.add(netns, "istio-system", "plain")
        assert plain.status == 0
        agent.start()
        answer = await agent.add(netns, "shop", "web")
        assert answer.status == 0, answer.stdout
        assert "redirect to :15001" in rules(netns)
