"""Other meshes on the node: Istio's own agent, which writes the same files, and other meshes' plugins. Pure."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from installer.cniconfig.netconf import PLUGIN_TYPE
from plugin import jsontext

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OTHERS = {"linkerd-cni": "Linkerd", "kuma-cni": "Kuma", "consul-cni": "Consul"}  # by their plugins' types
ISTIOS = "Istio's own CNI node agent"
MOST_PIECES = 256  # of a plugin file to search, of a megabyte each: Istio's has 36 to 141
ISTIOS_PLUGIN = b"istio.io/istio/cni"  # a Go import path, which its plugin file contains


def other_meshes(content: bytes) -> tuple[str, ...]:
    """Return the types of other meshes' plugins in a network configuration; none if it does not parse."""
    found = {each.get("type") for each in _plugins(content)}
    return tuple(name for name in OTHERS if name in found)


def has_istios_entry(content: bytes) -> bool:
    """Return whether a list has an entry of Istio's own agent: of our type, but without the keys of every entry of ours."""
    return any(each.get("type") == PLUGIN_TYPE and "agentSocket" not in each for each in _plugins(content))


def is_istios_plugin(pieces: Iterable[bytes]) -> bool:
    """Return whether a plugin file is that of Istio's own agent."""
    before = b""
    for piece in islice(pieces, MOST_PIECES):
        if ISTIOS_PLUGIN in before + piece:
            return True
        before = piece[-len(ISTIOS_PLUGIN) :]
    return False


def _plugins(content: bytes) -> Iterator[dict[str, Any]]:
    try:
        value = jsontext.loads(content.decode("utf-8", "surrogateescape"))
    except jsontext.JsonError:
        return
    plugins = value.get("plugins", [value]) if isinstance(value, dict) else ()
    yield from (each for each in (plugins if isinstance(plugins, list) else ()) if isinstance(each, dict))
