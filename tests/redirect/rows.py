"""The table of pod settings, and where packets then arrive.

A row runs over all backends, both families and both modes. To add one: name it, say what the pod says (annotations of the mesh
by their last part, env of istio-proxy in capitals), and list packets with the port at which each arrives, or DIRECT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from plugin.decision import decide
from plugin.keys import TRAFFIC
from plugin.parameters import Defaults, Ipv6
from plugin.pod import Pod
from plugin.redirect import Family, Mode, Redirect
from tests.redirect.probes import (
    APPLICATION,
    PROXY,
    PROXY_AS_ROOT,
    PROXY_GID_ALONE,
    PROXY_UID_ALONE,
    ROOT,
    Fate,
    Place,
    Probe,
    Sender,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

POD, LOOPBACK, OTHER_LOOPBACK = Place.POD, Place.LOOPBACK, Place.OTHER_LOOPBACK
PASS_THROUGH = Place.PASS_THROUGH
PEER, OTHER, SECOND = Place.PEER, Place.OTHER_PEER, Place.SECOND_PEER
DIRECT = -1


class ByMode(NamedTuple):
    """Where a packet arrives, if the modes differ."""

    redirect: int
    tproxy: int


Arrives = int | ByMode


class Row(NamedTuple):
    """What a pod says, and where packets arrive."""

    says: Mapping[str, str]
    packets: tuple[tuple[Probe, Arrives], ...]
    ports: tuple[int, ...] = ()
    security: Mapping[str, int] = {}

    def redirect(self, mode: Mode = Mode.REDIRECT) -> Redirect:
        """Decide as the agent does, about the pod that this row describes."""
        env = [{"name": name, "value": text} for name, text in self.says.items() if name.isupper()]
        annotations = {
            (name if "/" in name else TRAFFIC + name): text for name, text in self.says.items() if not name.isupper()
        }
        annotations |= {"sidecar.istio.io/status": "{}", "sidecar.istio.io/interceptionMode": mode.value}
        app: dict[str, Any] = {"name": "app", "ports": [{"containerPort": port} for port in self.ports]}
        proxy = {"name": "istio-proxy", "env": env, "securityContext": self.security}
        pod = {"metadata": {"name": "web", "annotations": annotations}, "spec": {"containers": [app, proxy]}}
        decided = decide(Pod.from_manifest(pod), (), Defaults(ipv6=Ipv6.ALWAYS))
        assert isinstance(decided, Redirect)
        return decided


def inbound(
    port: int, at: Arrives, interface: str = "eth0", to: Place = POD, *, udp: bool = False
) -> tuple[Probe, Arrives]:
    """What comes in by an interface, to the pod or, through it, to somebody else."""
    return Probe(Family.V4, port, interface=interface, to=to, udp=udp), at


def by(
    sender: Sender, to: Place, port: int, at: Arrives, *, udp: bool = False, bound: bool = False
) -> tuple[Probe, Arrives]:
    """What a process in the pod sends."""
    return Probe(Family.V4, port, sender, to, udp=udp, bound=bound), at


def fate(probe: Probe, arrives: Arrives, mode: Mode) -> Fate:
    """Say what a receiver at that port must see: the destination asked for, and the sender's own address."""
    port = arrives if isinstance(arrives, int) else arrives.redirect if mode is Mode.REDIRECT else arrives.tproxy
    asked = None if probe.udp else (probe.to, probe.port)
    return Fate(probe.port if port == DIRECT else port, asked)


ALL_INBOUND = {"includeInboundPorts": "*"}
BY_GID = (PROXY_GID_ALONE, PROXY_AS_ROOT)
OWN = (PROXY, PROXY_UID_ALONE, *BY_GID)
PEERS = "10.9.0.0/16,fd09::/16"
OTHERS = "192.0.2.77/24, 2001:db8::77/32"  # as people write them: with host bits
ROWS = {
    "inbound": Row(
        ALL_INBOUND,
        (
            *(inbound(port, 15006) for port in (80, 8080, 443, 53, 15001, 15006, 15053)),
            *(inbound(port, DIRECT) for port in (15008, 15020, 15021, 15090)),
            inbound(80, 15006, "net1"),
            inbound(53, DIRECT, udp=True),
        ),
    ),
    "inbound, to somebody behind the pod": Row(
        ALL_INBOUND,
        (
            inbound(80, 15006, "net1", PEER),
            inbound(15020, DIRECT, "net1", PEER),
            inbound(9000, DIRECT, "net1", PEER, udp=True),
        ),
    ),
    "outbound": Row(
        ALL_INBOUND,
        (
            by(APPLICATION, PEER, 80, 15001),
            by(ROOT, OTHER, 443, 15001),
            by(APPLICATION, SECOND, 80, 15001),
            by(APPLICATION, PEER, 15008, 15001),
            by(APPLICATION, PEER, 53, 15001),
            by(APPLICATION, PEER, 15020, DIRECT),
            by(APPLICATION, PEER, 9000, DIRECT, udp=True),
            by(APPLICATION, PEER, 53, DIRECT, udp=True),
            *(by(each, PEER, 80, DIRECT) for each in OWN),
        ),
    ),
    "over lo": Row(
        ALL_INBOUND,
        (
            by(PROXY, POD, 8080, 15006),
            by(PROXY_UID_ALONE, POD, 8080, 15006),
            by(PROXY, POD, 15001, 15006),
            by(PROXY, POD, 15008, DIRECT),
            by(PROXY, POD, 15020, DIRECT),  # an excluded outbound port
            by(PROXY, POD, 15021, 15006),
            by(PROXY, LOOPBACK, 80, DIRECT),
            by(PROXY, LOOPBACK, 15008, DIRECT),
            by(PROXY, OTHER_LOOPBACK, 80, 15006),
            by(PROXY, POD, 9000, DIRECT, udp=True),
            by(PROXY, POD, 80, DIRECT, bound=True),
            by(APPLICATION, POD, 80, DIRECT),
            by(APPLICATION, POD, 80, DIRECT, bound=True),
            by(APPLICATION, LOOPBACK, 80, DIRECT),
            by(APPLICATION, OTHER_LOOPBACK, 80, DIRECT),
            by(ROOT, POD, 80, DIRECT),
            by(PROXY, PASS_THROUGH, 15002, 15006),  # istio-validation
            *(by(each, POD, 80, ByMode(DIRECT, 15006)) for each in BY_GID),
            *(by(each, POD, 15008, DIRECT) for each in (*BY_GID, PROXY_UID_ALONE)),
            *(by(each, POD, 15020, DIRECT) for each in BY_GID),
            *(by(each, LOOPBACK, 80, DIRECT) for each in BY_GID),
            *(by(each, POD, 80, DIRECT, bound=True) for each in (*BY_GID, PROXY_UID_ALONE)),
            *(by(each, POD, 9000, DIRECT, udp=True) for each in BY_GID),
            by(APPLICATION, LOOPBACK, 9000, DIRECT, udp=True),
        ),
    ),
    "inbound: the ports that the pod declares": Row(
        {}, (inbound(80, 15006), inbound(443, 15006), inbound(8080, DIRECT)), ports=(80, 443)
    ),
    "inbound: nothing, as it declares none": Row({}, (inbound(80, DIRECT), by(APPLICATION, PEER, 80, 15001))),
    "inbound: nothing": Row(
        {"includeInboundPorts": ""},
        (
            inbound(80, DIRECT),
            inbound(80, DIRECT, "net1"),
            by(APPLICATION, PEER, 80, 15001),
            by(APPLICATION, POD, 80, DIRECT),
            by(PROXY, POD, 80, 15006),
            by(PROXY_AS_ROOT, POD, 80, ByMode(DIRECT, 15006)),
        ),
        ports=(80,),
    ),
    "inbound: these ports": Row(
        {"includeInboundPorts": " 80 ,8080,80"},
        (
            inbound(80, 15006),
            inbound(8080, 15006),
            inbound(443, DIRECT),
            by(PROXY, POD, 8080, 15006),
            by(PROXY, POD, 443, 15006),
            by(PROXY_AS_ROOT, POD, 443, ByMode(DIRECT, 15006)),
        ),
    ),
    "inbound: the sidecar's own ports never": Row(
        {"includeInboundPorts": "80,15008,15020,15021,15090"},
        (inbound(80, 15006), *(inbound(port, DIRECT) for port in (15008, 15020, 15021, 15090))),
    ),
    "inbound: all but": Row(
        {"includeInboundPorts": "*", "excludeInboundPorts": "8080, 443"},
        (inbound(80, 15006), inbound(8080, DIRECT), inbound(443, DIRECT)),
    ),
    "inbound: an exclude counts beside * alone": Row(
        {"includeInboundPorts": "80,8080", "excludeInboundPorts": "8080"}, (inbound(80, 15006), inbound(8080, 15006))
    ),
    "outbound: these ranges": Row(
        {"includeOutboundIPRanges": OTHERS},
        (by(APPLICATION, OTHER, 80, 15001), by(APPLICATION, PEER, 80, DIRECT), by(PROXY, OTHER, 80, DIRECT)),
    ),
    "outbound: every address, said by ranges": Row(
        ALL_INBOUND | {"includeOutboundIPRanges": "0.0.0.0/0,::/0"},
        (
            by(APPLICATION, PEER, 80, 15001),
            by(APPLICATION, PEER, 9000, DIRECT, udp=True),
            by(APPLICATION, POD, 80, DIRECT),
            by(APPLICATION, LOOPBACK, 80, DIRECT),
            by(PROXY, POD, 80, 15006),
        ),
    ),
    "outbound: every address excluded": Row(
        {"excludeOutboundIPRanges": "0.0.0.0/0,::/0"},
        (by(APPLICATION, PEER, 80, DIRECT), by(APPLICATION, PEER, 9000, DIRECT, udp=True)),
    ),
    "outbound: the same range excluded and included": Row(
        {"includeOutboundIPRanges": PEERS, "excludeOutboundIPRanges": PEERS}, (by(APPLICATION, PEER, 80, DIRECT),)
    ),
    "outbound: nothing": Row(
        {"includeOutboundIPRanges": ""}, (by(APPLICATION, PEER, 80, DIRECT), by(APPLICATION, OTHER, 80, DIRECT))
    ),
    "outbound: all but": Row(
        {"includeOutboundIPRanges": "*", "excludeOutboundIPRanges": OTHERS},
        (by(APPLICATION, PEER, 80, 15001), by(APPLICATION, OTHER, 80, DIRECT)),
    ),
    "outbound: an excluded range wins over an included one": Row(
        {"includeOutboundIPRanges": f"{PEERS},{OTHERS}", "excludeOutboundIPRanges": "192.0.2.9,2001:db8::9"},
        (by(APPLICATION, PEER, 80, 15001), by(APPLICATION, OTHER, 80, DIRECT)),
    ),
    "outbound: an excluded range wins over an included port": Row(
        {"excludeOutboundIPRanges": OTHERS, "includeOutboundPorts": "443"},
        (by(APPLICATION, OTHER, 443, DIRECT), by(APPLICATION, PEER, 443, 15001)),
    ),
    "outbound: an included port wins over an include list": Row(
        {"includeOutboundIPRanges": OTHERS, "includeOutboundPorts": "443"},
        (by(APPLICATION, PEER, 443, 15001), by(APPLICATION, PEER, 80, DIRECT), by(APPLICATION, OTHER, 80, 15001)),
    ),
    "outbound: ports alone": Row(
        {"includeOutboundIPRanges": "", "includeOutboundPorts": "443,8080"},
        (by(APPLICATION, PEER, 443, 15001), by(APPLICATION, OTHER, 8080, 15001), by(APPLICATION, PEER, 80, DIRECT)),
    ),
    "outbound: excluded ports replace 15020, and win over included ones": Row(
        {"excludeOutboundPorts": "443,80", "includeOutboundPorts": "80"},
        (
            by(APPLICATION, PEER, 443, DIRECT),
            by(APPLICATION, PEER, 80, DIRECT),
            by(APPLICATION, PEER, 8080, 15001),
            by(APPLICATION, PEER, 15020, 15001),
        ),
    ),
    "outbound: no port excluded": Row(
        ALL_INBOUND | {"excludeOutboundPorts": ""},
        (by(APPLICATION, PEER, 15020, 15001), by(PROXY, POD, 15020, 15006)),
    ),
    "outbound: excluded ports come before the sidecar's calls of the pod": Row(
        ALL_INBOUND | {"excludeOutboundPorts": "8080"}, (by(PROXY, POD, 8080, DIRECT), by(PROXY, POD, 80, 15006))
    ),
    "outbound: an included loopback range asks for the application's traffic with itself": Row(
        ALL_INBOUND | {"includeOutboundIPRanges": f"127.0.0.0/8,::1/128,::2,{PEERS}"},
        (
            by(APPLICATION, POD, 80, 15001),
            by(APPLICATION, LOOPBACK, 80, DIRECT),
            by(APPLICATION, OTHER_LOOPBACK, 80, 15001),
            by(APPLICATION, POD, 9000, DIRECT, udp=True),
            by(PROXY_GID_ALONE, POD, 15008, DIRECT),
            by(PROXY, POD, 80, 15006),
            *(by(each, POD, 80, 15006) for each in BY_GID),
            *(by(each, LOOPBACK, 80, DIRECT) for each in OWN),
        ),
    ),
    "excluded interfaces": Row(
        ALL_INBOUND | {"excludeInterfaces": "net1,net7"},
        (
            inbound(80, DIRECT, "net1"),
            inbound(80, 15006),
            by(APPLICATION, SECOND, 80, DIRECT),
            by(APPLICATION, PEER, 80, 15001),
        ),
    ),
    "the loopback interface excluded": Row(
        ALL_INBOUND | {"excludeInterfaces": "lo", "ISTIO_META_DNS_CAPTURE": "true"},
        (
            *(by(each, POD, 80, DIRECT) for each in OWN),
            by(APPLICATION, LOOPBACK, 53, DIRECT),
            by(APPLICATION, PEER, 53, 15053),
            by(APPLICATION, PEER, 80, 15001),
            inbound(80, 15006),
        ),
    ),
    "virtual machines: all that they send": Row(
        ALL_INBOUND | {"kubevirtInterfaces": "net1", "excludeOutboundIPRanges": OTHERS, "excludeOutboundPorts": "443"},
        (
            inbound(80, 15001, "net1"),
            inbound(15008, 15001, "net1"),
            inbound(443, 15001, "net1", OTHER),
            inbound(80, 15006),
            inbound(9000, DIRECT, "net1", PEER, udp=True),
        ),
    ),
    "virtual machines: to these ranges": Row(
        ALL_INBOUND | {"istio.io/reroute-virtual-interfaces": "net1", "includeOutboundIPRanges": OTHERS},
        (
            inbound(80, 15001, "net1", OTHER),
            inbound(80, DIRECT, "net1", PEER),
            inbound(80, DIRECT, "net1"),
            inbound(80, 15006),
        ),
    ),
    "virtual machines: nothing, as ports alone are included": Row(
        ALL_INBOUND | {"kubevirtInterfaces": "net1", "includeOutboundIPRanges": "", "includeOutboundPorts": "80"},
        (
            inbound(80, DIRECT, "net1", OTHER),
            inbound(80, DIRECT, "net1"),
            by(APPLICATION, PEER, 80, 15001),
            inbound(80, 15006),
        ),
    ),
    "virtual machines: not on an excluded interface": Row(
        ALL_INBOUND | {"kubevirtInterfaces": "net1", "excludeInterfaces": "net1"},
        (inbound(80, DIRECT, "net1"), inbound(80, DIRECT, "net1", PEER), inbound(80, 15006)),
    ),
    "DNS": Row(
        ALL_INBOUND | {"ISTIO_META_DNS_CAPTURE": "true"},
        (
            *(by(APPLICATION, to, 53, 15053, udp=udp) for to in (PEER, LOOPBACK, POD) for udp in (True, False)),
            *(by(each, PEER, 53, DIRECT, udp=udp) for each in OWN for udp in (True, False)),
            *(by(each, POD, 53, DIRECT, udp=udp) for each in OWN for udp in (True, False)),
            *(by(each, LOOPBACK, 53, DIRECT, udp=udp) for each in OWN for udp in (True, False)),
            by(ROOT, LOOPBACK, 53, 15053, udp=True),
            inbound(53, 15006),
            by(PROXY, POD, 80, 15006),
            by(PROXY_AS_ROOT, POD, 80, ByMode(DIRECT, 15006)),
            by(APPLICATION, POD, 80, DIRECT),
            by(APPLICATION, LOOPBACK, 80, DIRECT),
            by(APPLICATION, PEER, 9000, DIRECT, udp=True),
            by(APPLICATION, PEER, 80, 15001),
            inbound(53, DIRECT, udp=True),
        ),
    ),
    "DNS: not where its port is excluded": Row(
        {"ISTIO_META_DNS_CAPTURE": "1", "excludeOutboundPorts": "53"},
        (by(APPLICATION, PEER, 53, DIRECT, udp=True), by(APPLICATION, PEER, 53, DIRECT)),
    ),
    "DNS: before excluded ranges, but not on excluded interfaces": Row(
        ALL_INBOUND
        | {"ISTIO_META_DNS_CAPTURE": "true", "INVALID_DROP": "true", "excludeInterfaces": "net1"}
        | {"excludeOutboundIPRanges": PEERS, "includeOutboundIPRanges": OTHERS},
        (
            *(by(APPLICATION, PEER, 53, 15053, udp=udp) for udp in (True, False)),
            *(by(each, SECOND, 53, DIRECT, udp=udp) for each in (APPLICATION, PROXY) for udp in (True, False)),
            inbound(53, DIRECT, "net1", udp=True),
            by(APPLICATION, PEER, 80, DIRECT),
            by(APPLICATION, OTHER, 80, 15001),
        ),
    ),
    "DNS: an included loopback range changes nothing": Row(
        ALL_INBOUND | {"ISTIO_META_DNS_CAPTURE": "true", "includeOutboundIPRanges": f"127.0.0.0/8,::1,{PEERS}"},
        (
            *(by(APPLICATION, LOOPBACK, 53, 15053, udp=udp) for udp in (True, False)),
            *(by(each, POD, 53, DIRECT) for each in OWN),
            by(APPLICATION, LOOPBACK, 80, DIRECT),
            by(APPLICATION, POD, 80, 15001),
            by(APPLICATION, POD, 9000, DIRECT, udp=True),
        ),
    ),
    "a sidecar with another uid and gid": Row(
        ALL_INBOUND | {"ISTIO_META_DNS_CAPTURE": "true"},
        (
            *(by(each, PEER, 80, DIRECT) for each in (Sender(2000, 2000), Sender(2000, 7), Sender(7, 2000))),
            *(by(Sender(2000, 2000), PEER, 53, DIRECT, udp=udp) for udp in (True, False)),
            *(by(each, POD, 80, 15006) for each in (Sender(2000, 2000), Sender(2000, 7))),
            by(Sender(7, 2000), POD, 80, ByMode(DIRECT, 15006)),
            by(Sender(2000, 2000), POD, 53, DIRECT),
            by(PROXY, PEER, 80, 15001),
            *(by(PROXY, PEER, 53, 15053, udp=udp) for udp in (True, False)),
            by(PROXY, POD, 80, DIRECT),
            inbound(80, 15006),
        ),
        security={"runAsUser": 2000, "runAsGroup": 2000},
    ),
    "a sidecar with another uid alone": Row(
        ALL_INBOUND,
        (
            *(by(each, PEER, 80, DIRECT) for each in (Sender(2000, 1337), Sender(2000, 7), PROXY_GID_ALONE)),
            by(PROXY_UID_ALONE, PEER, 80, 15001),
            by(Sender(2000, 7), POD, 80, 15006),
        ),
        security={"runAsUser": 2000},
    ),
    "a sidecar as root, of the mesh's group": Row(
        ALL_INBOUND,
        (
            by(PROXY_AS_ROOT, PEER, 80, DIRECT),
            by(PROXY_AS_ROOT, POD, 80, ByMode(DIRECT, 15006)),
            by(PROXY_AS_ROOT, POD, 15008, DIRECT),
            by(ROOT, PEER, 80, 15001),
            by(ROOT, POD, 80, DIRECT),
            by(PROXY, POD, 80, 15006),
            by(PROXY, PASS_THROUGH, 15002, 15006),
        ),
        security={"runAsUser": 0, "runAsGroup": 1337},
    ),
    "a sidecar as root, of another group": Row(
        ALL_INBOUND,
        (
            by(Sender(0, 2000), PEER, 80, DIRECT),
            by(Sender(0, 2000), POD, 80, ByMode(DIRECT, 15006)),
            by(PROXY_AS_ROOT, PEER, 80, 15001),
            by(PROXY, POD, 80, 15006),
        ),
        security={"runAsUser": 0, "runAsGroup": 2000},
    ),
    "a sidecar of root's group": Row(
        ALL_INBOUND,
        (
            *(by(Sender(1337, 0), to, 80, at) for to, at in ((PEER, DIRECT), (POD, 15006))),
            by(ROOT, PEER, 80, 15001),
            by(ROOT, POD, 80, DIRECT),
        ),
        security={"runAsUser": 1337, "runAsGroup": 0},
    ),
    "a sidecar with uid 0 counts as 1337": Row(
        ALL_INBOUND,
        (by(ROOT, PEER, 80, 15001), by(PROXY, PEER, 80, DIRECT)),
        security={"runAsUser": 0, "runAsGroup": 0},
    ),
    "invalid packets are dropped, valid ones are not": Row(
        ALL_INBOUND | {"INVALID_DROP": "true"},
        (
            inbound(80, 15006),
            by(APPLICATION, PEER, 80, 15001),
            by(PROXY, POD, 80, 15006),
            inbound(53, DIRECT, udp=True),
        ),
    ),
}
