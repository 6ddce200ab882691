"""Pods are checked one after the other, so an API server that accepts and never answers is not waited for at each of them."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from installer.agent.cluster import Cluster
from installer.aio import Changes
from installer.config.desired import DesiredState
from installer.config.settings import parse_settings
from installer.host.in_force import InForce
from plugin.pod import Pod
from tests.plugin.conftest import manifest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]


async def test_an_api_server_that_hangs_is_waited_for_once(tmp_path: Path) -> None:
    requests, connections = 0, list[asyncio.StreamWriter]()

    async def never_answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        connections.append(writer)
        while await reader.read(65536):
            requests += 1

    server = await asyncio.start_server(never_answered, "127.0.0.1", 0)
    url, name = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", {"name": "x"}
    written = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "clusters": [name | {"cluster": {"server": url}}],
        "contexts": [name | {"context": {"cluster": "x", "user": "x"}}],
        "users": [name | {"user": {"token": "none"}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(written))
    paths = {"kubeconfig": str(tmp_path / "kubeconfig"), "agent_socket": str(tmp_path / "agent.sock")}
    settings = parse_settings({"node_name": "node1"} | paths)
    cluster = Cluster(settings, InForce(DesiredState(settings)), lambda _: None, lambda: None, Changes())  # type: ignore[arg-type, return-value]
    pod = Pod.from_manifest(manifest("cart"))
    for number in range(20):
        assert await cluster.handler_of(f"class-{number}") == ""
        assert "cannot be confirmed" in await cluster.confirm(pod)
        assert await cluster.delete_pod(pod)
    await cluster.close()
    server.close()
    for each in connections:
        each.close()
        await each.wait_closed()
    assert requests == 1
