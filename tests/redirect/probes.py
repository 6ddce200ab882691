"""What a test sends through a pod's netns, and what may become of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from plugin.redirect import Family


class Sender(NamedTuple):
    """A process in the pod, by its ids."""

    uid: int
    gid: int


PROXY = Sender(1337, 1337)
PROXY_AS_ROOT = Sender(0, 1337)  # as injectors run it under TPROXY
PROXY_UID_ALONE = Sender(1337, 4242)
PROXY_GID_ALONE = Sender(4242, 1337)
APPLICATION = Sender(1000, 1000)
ROOT = Sender(0, 0)


class Place(Enum):
    """An address by what it is to the pod; `tests.redirect.machines` says which it is in each family."""

    POD = "the pod's own address"
    LOOPBACK = "127.0.0.1 or ::1"
    OTHER_LOOPBACK = "another address of lo, 127.0.0.2 or ::2"
    PASS_THROUGH = "the proxy's pass-through address, 127.0.0.6 or ::6"  # noqa: S105 - no password
    PEER = "a host outside"
    OTHER_PEER = "a host outside in another range"
    SECOND_PEER = "a host behind the pod's second interface"


@dataclass(frozen=True, slots=True)
class Probe:
    """One connection or datagram.

    `sender` in the pod, or None: it comes from outside by `interface`, to the pod's address on it. `bound`: the source
    is 127.0.0.6 or ::6, as of the proxy's pass-through. What is sent to that address has the source 127.0.0.1 or ::1, as of
    istio-validation. `source_port` 0: any. A datagram to OTHER_PEER is not answered.
    """

    family: Family
    port: int
    sender: Sender | None = None
    to: Place = Place.POD
    interface: str = "eth0"
    udp: bool = False
    bound: bool = False
    source_port: int = 0


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of it: the port at which it arrived, or None if nothing answered.

    `asked_for` is the destination that the receiver finds, by SO_ORIGINAL_DST or else its own address: a place and a
    port; None for UDP. `source` is whether the receiver sees the sender's own address.
    """

    port: int | None
    asked_for: tuple[Place, int] | None = None
    source: bool = True
