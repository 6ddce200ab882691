"""A tenant's endlessly failing or ever new pods fill neither the node's log nor other tenants' share of it (F37)."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from plugin import wire
from plugin.keys import INTERCEPTION_MODE, REROUTE, TRAFFIC
from tests.agent.test_agent import PRIMARY
from tests.plugin.conftest import manifest
from tests.support.agent import AgentProcess
from tests.support.netns import Netns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

MANY = 1500
HOSTILE = "80;\x1b[2J\n\u202e" + "x" * 60_000
RANGES = ",".join(f"10.{number // 256}.{number % 256}.0/24" for number in range(1024))
PODS = {
    "web": {},
    "invalid": {TRAFFIC + "excludeOutboundPorts": HOSTILE},
    "oversized": {
        TRAFFIC + "includeOutboundIPRanges": RANGES,
        TRAFFIC + "excludeOutboundIPRanges": RANGES,
        REROUTE: "a,b",
    },
    "mode": {INTERCEPTION_MODE: HOSTILE},
}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    for name in ("conf", "bin", "pods"):
        (tmp_path / name).mkdir()
    (tmp_path / "conf" / "10-k8s.conflist").write_bytes(PRIMARY)
    for name, asked in PODS.items():
        pod = {"apiVersion": "v1", "kind": "Pod"} | manifest(name, **asked)
        (tmp_path / "pods" / f"{name}.json").write_text(json.dumps(pod))
    options: dict[str, str | Path] = {"pods-from": tmp_path / "pods"}
    made = AgentProcess(tmp_path, conf_dir=tmp_path / "conf", bin_dir=tmp_path / "bin", options=options)
    with made:
        made.ready()
        yield made


@pytest.fixture
def netns(tmp_path: Path) -> Iterator[Netns]:
    with Netns(tmp_path / "netns") as made:
        yield made


def add(agent: AgentProcess, netns: Netns, number: int, name: str, namespace: str = "shop") -> int:
    """Send one ADD; return its exit status."""
    variables = {
        b"CNI_COMMAND": b"ADD",
        b"CNI_CONTAINERID": b"%d" % number,
        b"CNI_NETNS": bytes(netns.path),
        b"CNI_IFNAME": b"eth0",
        b"CNI_ARGS": f"K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_UID=uid-of-{name}".encode(),
    }
    request = wire.frame(wire.REQUEST, wire.join(variables, b'{"cniVersion":"1.0.0"}'))
    with socket.socket(socket.AF_UNIX) as client:
        descriptor = os.open(netns.path, os.O_RDONLY)
        try:
            client.connect(str(agent.socket))
            socket.send_fds(client, [request], [descriptor])
        finally:
            os.close(descriptor)
        received = b"".join(iter(lambda: client.recv(65536), b""))
    while received[:2] == bytes((wire.VERSION, wire.WORKING)):
        received = received[wire.HEAD :]
    return received[wire.HEAD]


def lines(agent: AgentProcess) -> list[dict[str, Any]]:
    """Read the agent's log, and check each line."""
    found = agent.log.read_text().splitlines()
    assert all(line.isascii() and line.isprintable() and len(line) < 20_000 for line in found)
    return [json.loads(line) for line in found]


def told(agent: AgentProcess, namespace: str) -> tuple[int, int]:
    """Count the lines about ADDs of a namespace, and the ADDs that they count."""
    about = [line for line in lines(agent) if line.get("namespace") == namespace]
    return len(about), sum(line.get("suppressed", 0) + ("pod" in line) for line in about)


FLOODS: dict[
    str, tuple[Callable[[int], str], int]
] = {  # the pod of the next ADD, and the largest number of lines about them
    "an invalid annotation again and again": (lambda _: "invalid", 10),
    "too many rules again and again": (lambda _: "oversized", 10),
    "a hostile mode": (lambda _: "mode", 10),
    "one that is redirected each time": (lambda _: "web", 10),
    "ever new names": (lambda number: f"new-{number}", 300),
    "new ones and old ones in turns": (lambda number: ("invalid", "web", f"new-{number}")[number % 3], 320),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_of_adds_logs_few_lines_that_count_all_of_them(agent: AgentProcess, netns: Netns, flood: str) -> None:
    name, most = FLOODS[flood]
    many = 150 if name(0) == "web" else MANY
    for number in range(many):
        add(agent, netns, number, name(number))
    assert add(agent, netns, many, "innocent", "bank") == 1
    assert add(agent, netns, many + 1, "web") == 0
    first = [line["pod"] for line in lines(agent) if line.get("namespace") and "pod" in line]
    assert (first[0], "innocent" in first) == (name(0), True)
    suppressed = agent.get("/metrics")[1].rpartition("istio_cni_suppressed_log_lines_total ")[2].split()[0]
    assert float(suppressed) > many / 2
    agent.stop()
    count, adds = told(agent, "shop")
    assert count <= most + 5
    assert adds == many + 1


def test_log_lines_about_many_namespaces_are_bounded(agent: AgentProcess, netns: Netns) -> None:
    for number in range(2 * MANY):
        add(agent, netns, number, "web", f"of-{number % 60}")
    assert len(lines(agent)) < 1500
    agent.stop()
    counted = [line for line in lines(agent) if str(line.get("namespace", "")).startswith("of-")]
    assert sum(line.get("suppressed", 0) + ("pod" in line) for line in counted) == 2 * MANY
