"""However a result omits the pod's addresses, those of its netns count (F38)."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.plugin.conftest import Agent, calls, config, manifest, rules

if TYPE_CHECKING:
    from tests.support.call import Plugin
    from tests.support.netns import Netns

pytestmark = pytest.mark.kernel

WITHOUT: dict[str, tuple[str, Any]] = {
    "no prevResult": ("1.0.0", None),
    "ips null": ("1.0.0", {"cniVersion": "1.0.0", "ips": None}),
    "ips empty": ("0.4.0", {"cniVersion": "0.4.0", "interfaces": [{"name": "net1"}], "ips": []}),
    "no ips": ("0.3.1", {"cniVersion": "0.3.1", "dns": {}}),
    "1.1.0, no ips": ("1.1.0", {"cniVersion": "1.1.0", "interfaces": []}),
    "0.1.0, nothing": ("0.1.0", {"cniVersion": "0.1.0"}),
    "0.2.0, ip4 null": ("0.2.0", {"cniVersion": "0.2.0", "ip4": None, "ip6": None}),
    "0.2.0, empty": ("0.2.0", {"cniVersion": "0.2.0", "ip4": {}, "ip6": {}}),
    "a link-local address alone": ("1.0.0", {"cniVersion": "1.0.0", "ips": [{"address": "fe80::7/64"}]}),
}
WITH: dict[str, tuple[str, Any]] = {
    "0.1.0, ip6": ("0.1.0", {"ip6": {"ip": "fd00:1::3/64"}}),
    "0.2.0, ip4 and ip6": (
        "0.2.0",
        {"cniVersion": "0.2.0", "ip4": {"ip": "10.1.2.3/24"}, "ip6": {"ip": "fd00:1::3/64"}},
    ),
    "0.3.1": ("0.3.1", {"cniVersion": "0.3.1", "ips": [{"version": "6", "address": "fd00:1::3/64"}]}),
    "1.1.0": ("1.1.0", {"cniVersion": "1.1.0", "ips": [{"address": "10.1.2.3/24"}, {"address": "fd00:1::3/64"}]}),
    "IPv4 alone, and IPv6 by another plugin": ("1.0.0", {"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.3/24"}]}),
}
DUAL = [{"name": "ISTIO_DUAL_STACK", "value": "true"}]


def give(netns: Netns, *addresses: str) -> None:
    """Give a netns an interface with these addresses."""
    steps = ["link set lo up", "link add eth0 type veth peer name peer", "link set eth0 up", "link set peer up"]
    steps += [f"address add {each} dev eth0{' nodad' if ':' in each else ''}" for each in addresses]
    for step in steps:
        run_in(netns, f"ip {step}")


def run_in(netns: Netns, command: str) -> None:
    """Run a command in a netns."""
    subprocess.run(["/usr/bin/nsenter", f"--net={netns.path}", *f"/usr/sbin/{command}".split()], check=True)


def stdin(plugin: Plugin, agent: Agent, version: str, prev: Any) -> dict[str, Any]:
    made = config(plugin, agent, cniVersion=version, prevResult=prev)
    return {key: value for key, value in made.items() if value is not None}


@pytest.mark.parametrize("case", WITHOUT)
@pytest.mark.parametrize(
    "has",
    [(["fd00:1::3/64"], []), (["10.1.2.3/24", "fd00:1::3/64"], DUAL), (["10.1.2.3/24", "fd00:1::3/64"], []), ([], [])],
    ids=["IPv6 alone", "both, dual-stack", "both, of unknown order", "none yet"],
)
async def test_ipv6_is_redirected_if_no_address_is_known(
    plugin: Plugin, agent: Agent, pod_netns: Netns, case: str, has: tuple[list[str], Any]
) -> None:
    addresses, env = has
    give(pod_netns, *addresses)
    agent.pods.add(with_env(env))
    async with agent.serving():
        given = stdin(plugin, agent, *WITHOUT[case])
        answer = await plugin(calls(plugin, agent, pod_netns.path, CNI_IFNAME="net1"), given)
    assert answer.status == 0, answer.stdout
    assert "table ip6 istio-cni-nat" in rules(pod_netns)
    assert "; IPv4 and IPv6, as " in agent.outcomes[-1].reason
    assert agent.outcomes[-1].bypassing == 0


@pytest.mark.parametrize("case", WITHOUT)
async def test_an_ipv4_pod_is_recognised_from_any_source(
    plugin: Plugin, agent: Agent, pod_netns: Netns, case: str
) -> None:
    give(pod_netns, "10.1.2.3/24")
    async with agent.serving():
        answer = await plugin(calls(plugin, agent, pod_netns.path), stdin(plugin, agent, *WITHOUT[case]))
        assert answer.status == 0, answer.stdout
    assert "table ip6" not in rules(pod_netns)
    expected = "it is a meshed pod; IPv4, as its first address is 10.1.2.3 and ISTIO_DUAL_STACK is not true"
    assert agent.outcomes[-1].reason == expected


@pytest.mark.parametrize("case", WITH)
@pytest.mark.parametrize("dual_stack", [True, False], ids=["dual-stack", "not dual-stack"])
async def test_an_ipv6_address_is_redirected_or_reported(
    plugin: Plugin, agent: Agent, pod_netns: Netns, case: str, *, dual_stack: bool
) -> None:
    give(pod_netns, "10.1.2.3/24", "fd00:1::3/64")
    agent.pods.add(with_env(DUAL if dual_stack else []))
    async with agent.serving():
        answer = await plugin(calls(plugin, agent, pod_netns.path), stdin(plugin, agent, *WITH[case]))
    assert answer.status == 0, answer.stdout
    outcome = agent.outcomes[-1]
    if "ip6 istio-cni-nat" not in rules(pod_netns):
        assert not dual_stack
        assert outcome.bypassing == 1
        assert outcome.reason.endswith("; fd00:1::3 bypasses its sidecar")
    else:
        assert outcome.bypassing == 0


@pytest.mark.parametrize("prev", [None, {"cniVersion": "1.0.0", "ips": [{"address": "fd00:1::3/64"}]}])
async def test_check_expects_what_add_wrote(plugin: Plugin, agent: Agent, pod_netns: Netns, prev: Any) -> None:
    give(pod_netns, "10.1.2.3/24", "fd00:1::3/64")
    async with agent.serving():
        given = stdin(plugin, agent, "1.0.0", prev)
        for command in ("ADD", "CHECK"):
            answer = await plugin(calls(plugin, agent, pod_netns.path, command), given)
            assert answer.status == 0, answer.stdout
        run_in(pod_netns, "nft delete table ip6 istio-cni-nat")
        answer = await plugin(calls(plugin, agent, pod_netns.path, "CHECK"), given)
    assert (answer.status, answer.json["code"]) == (1, 100)


def with_env(env: Any) -> dict[str, Any]:
    """The pod, with env of its sidecar."""
    made = manifest()
    made["spec"]["containers"][1]["env"] = env
    return made
