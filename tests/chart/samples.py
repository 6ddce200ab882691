"""Values of each setting of the agents that the chart has: one other than the default, and some that are refused."""

from __future__ import annotations

from typing import Any

CHANGED: dict[str, Any] = {
    "chained": False,
    "cniBinDir": "/x/bin",
    "cniConfDir": "/x/net.d",
    "cniConfFileName": "10-x.conflist",
    "istioOwnedCNIConfig": True,
    "istioOwnedCNIConfigFileName": "01-x.conflist",
    "agentSocket": "/run/x/y.sock",
    "excludeNamespaces": ["a", "foo_ns"],
    "redirectBackend": "iptables-legacy",
    "inboundPortsDefault": "*",
    "ipv6": "never",
    "repairMode": "delete",
    "logLevel": "debug",
    "netnsDir": "/x/netns",
    "healthAddress": "[::]:1234",
}

WRONG: dict[str, list[Any]] = {
    "chained": ["no"],
    "cniBinDir": ["bin", ""],
    "cniConfDir": ["a/b", "", "/a\0"],
    "cniConfFileName": ["x", "a/x.conf", ".conf", ".x.conf"],
    "istioOwnedCNIConfig": ["no"],
    "istioOwnedCNIConfigFileName": ["x.conf", "a/x.conflist", ".conflist", ".x.conflist"],
    "agentSocket": ["a.sock", "/run/a/", '/run/a/"', "/run/a/" + "b" * 94],
    "excludeNamespaces": [["A"], ["-a"], ["a", "a" * 64]],
    "healthAddress": ["h:65536", "localhost", "::1:15014", "a:b", "[::1]", "a_b:1"],
    "logLevel": ["loud", ""],
    "netnsDir": ["netns", ""],
    "redirectBackend": ["ebpf"],
    "inboundPortsDefault": ["80"],
    "ipv6": ["true"],
    "repairMode": ["true", "Redirect"],
}
