"""Changes inputs where they are read, line by line: bytes changed at random seldom leave a key as it is."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

from plugin.keys import DUAL_STACK, INTERCEPTION_MODE, REROUTE, TRAFFIC

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PORT_LISTS = ("includeInboundPorts", "excludeInboundPorts", "includeOutboundPorts", "excludeOutboundPorts")
RANGE_LISTS = ("includeOutboundIPRanges", "excludeOutboundIPRanges")
KEYS = (
    *(f"annotation {TRAFFIC}{each}" for each in (*PORT_LISTS, *RANGE_LISTS, "excludeInterfaces", "kubevirtInterfaces")),
    *(f"annotation {each}" for each in (REROUTE, INTERCEPTION_MODE, "sidecar.istio.io/inject")),
    *(f"env {each}" for each in ("ISTIO_META_DNS_CAPTURE", "INVALID_DROP", DUAL_STACK, "DISABLE_ENVOY")),
    *("label sidecar.istio.io/inject", "uid", "gid", "port", "address", "manifest"),
    *("CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"),
)
GOOD = (
    *("*", "", "80", "443", "65535", "0080", "10.1.2.3/8", "10.0.0.1", "127.0.0.0/8", "0.0.0.0/0", "fd00::/8", "::1"),
    *("::ffff:10.0.0.0/104", "eth0", "lo", "k6t-net1", "a_b.c-d", "REDIRECT", "TPROXY", "NONE", "true", "0", "T"),
    *("ADD", "CHECK", "STATUS", "1337", "2147483647", "{}", "/x", "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b"),
)
BAD = (
    *(
        "\u0663",
        "\uff18\uff10",
        "1e3",
        "0x50",
        "-1",
        "+80",
        "65536",
        "99999999999999999999",
        "80;443",
        "80:90",
        "80-90",
        "\xb2",
    ),
    *("10.0.0.0/33", "10.0.0.0/08", "1.2.3", "::/129", "fe80::1%eth0", "10.0.0.0/255.0.0.0", "::1::", "10.0.0.0/-1"),
    *("0eth", "abcdefghijklmnop", 'eth0" accept', "eth0;", "eth0+", "é", "-j", "{", "# ", "$x", "@x", "\x1b[2J"),
)
AFTER = ("\n", "\r", "\x00", "\t", "\u2028", "\x85", "\udcff", " ", '"', "; drop", "\n-A ISTIO_OUTPUT -j ACCEPT")

VALUES: tuple[Any, ...] = (None, True, 0, -1, 80, 1e300, 10**30, "", [], {}, [None], {"name": 1}, {"": []})


def mutator(otherwise: Callable[[bytes, int], bytes]) -> Callable[[bytes, int, int], bytes]:
    """Make a mutator for atheris, which every other time leaves it to libFuzzer's own.

    Args:
        otherwise: libFuzzer's own, of an input and the largest size.
    """

    def change(data: bytes, largest: int, seed: int) -> bytes:
        chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
        if chance.random() < 0.5:
            return otherwise(data, largest)
        head, end, stdin = data.partition(b"\n\n")
        lines = head.split(b"\n")
        place = chance.randrange(len(lines))
        key = lines[place].partition(b"=")[0]
        match chance.randrange(5):
            case 0:
                lines[place:place] = [_line(chance, chance.choice(KEYS).encode())]
            case 1:
                lines[place] = _line(chance, key)
            case 2:
                lines[place] += b"," + _value(chance).encode("utf-8", "replace")
            case 3 if stdin:
                stdin = _changed(chance, stdin)
            case 3 if key == b"manifest":
                lines[place] = key + b"=" + _changed(chance, lines[place].partition(b"=")[2])
            case _:
                del lines[place]
        return (b"\n".join(lines) + end + stdin)[:largest]

    return change


def _changed(chance: random.Random, data: bytes) -> bytes:
    """Change JSON in one place: what stands there is another value, twice there, or not at all."""
    try:
        whole = json.loads(data)
        parents = [parent for parent in _all(whole) if parent]
    except (ValueError, RecursionError):
        return data
    if not parents:
        return json.dumps(chance.choice(VALUES)).encode()
    parent: Any = chance.choice(parents)
    place: Any = chance.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
    match chance.randrange(3):
        case 0:
            del parent[place]
        case 1 if isinstance(parent, list):
            parent.append(parent[place])
        case _:
            parent[place] = chance.choice((*VALUES, _value(chance)))
    return json.dumps(whole).encode()


def _all(value: Any) -> Iterator[dict[str, Any] | list[Any]]:
    """Find all objects and lists in a value."""
    if isinstance(value, dict | list):
        yield value
        for each in value.values() if isinstance(value, dict) else value:
            yield from _all(each)


def _line(chance: random.Random, key: bytes) -> bytes:
    return key + b"=" + _value(chance).encode("utf-8", "replace")


def _value(chance: random.Random) -> str:
    """A list of tokens, mostly good ones; with what JSON alone can hold behind one of them, as JSON."""
    tokens = [chance.choice(GOOD if chance.random() < 0.9 else BAD) for _ in range(chance.choice((1, 1, 1, 2, 3, 8)))]
    if chance.random() < 0.2:
        tokens[chance.randrange(len(tokens))] += chance.choice(AFTER)
        return json.dumps(",".join(tokens))
    return ",".join(tokens)
