"""Handling one request of a client: parse, decide, redirect, answer. It knows neither sockets nor Kubernetes."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from plugin import netns, wire
from plugin.apply import ApplyError
from plugin.cni import CniError, Code, Request
from plugin.decision import weigh
from plugin.keys import of_the_mesh
from plugin.lookup import Lookup
from plugin.netns import NetnsFd
from plugin.prefilter import NEVER_INJECTED, Pass, outside_mesh
from plugin.program import Plan
from plugin.values import InvalidValue
from plugin.workers import AbandonedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from plugin.backend import Capability
    from plugin.decision import Policy
    from plugin.pod import PodSource
    from plugin.redirect import Family
    from plugin.values import Address
    from plugin.workers import Workers


_T = TypeVar("_T")

LARGE_TEXT = 8192  # characters, which take a few milliseconds to parse

_MESHED = "it is a meshed pod"

_log = logging.getLogger(__name__)


class Waiting(Protocol):
    """The clients that wait for one answer. Callable from any thread."""

    def is_wanted(self) -> bool:
        """Return whether one still waits."""

    def answer(self, status: int, stdout: bytes) -> None:
        """Answer them, as far as that does not have to wait. The same has to follow as a `Reply`."""


class Reply(NamedTuple):
    """Exit status and stdout for the client, and a callback to run once it has them: it writes log and metrics."""

    status: int
    stdout: bytes
    record: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one request, for log and metrics.

    `outcome` is redirect, pass, error or abandoned; `row` the short name of the deciding row of the decision table, if any;
    `code` the CNI error code, 0 for success; `bypassing` the number of the pod's addresses whose traffic bypasses its sidecar;
    `families` the redirected ones; `ipv6_off` whether the pod's IPv6 does not work through its sidecar; `mismatch` how
    the runtime and the API server contradict each other about the pod.
    """

    command: str
    namespace: str
    pod: str
    container_id: str
    outcome: str
    row: str | None
    reason: str
    code: int
    seconds: float
    bypassing: int = 0
    mismatch: str = ""
    pod_uid: str | None = None
    families: tuple[Family, ...] = ()
    ipv6_off: bool = False


class _Done(NamedTuple):
    outcome: str
    row: str | None
    reason: str
    code: int = 0
    bypassing: int = 0
    mismatch: str = ""
    families: tuple[Family, ...] = ()
    ipv6_off: bool = False


class _Decided(NamedTuple):
    """The decision on a pod: a pass or the plan of its redirect, and how runtime and API server contradict each other."""

    then: Plan | Pass
    mismatch: str = ""


class InForce(Protocol):
    """What is currently in force on this node."""

    @property
    def policy(self) -> Policy:
        """The settings that concern pods."""

    @property
    def capability(self) -> Capability:
        """The capability of the chosen backend; STATUS fails without any."""


class Handler:
    """Answers requests; one instance per agent."""

    def __init__(
        self,
        pods: PodSource,
        workers: Workers,
        *,
        in_force: InForce,
        observe: Callable[[Outcome], None],
    ) -> None:
        """Set it up.

        Args:
            pods: the source of the node's pods.
            workers: the threads that redirect pods.
            in_force: read at each request.
            observe: called with the outcome of each request.
        """
        self._lookup = Lookup(pods)
        self._workers = workers
        self._in_force = in_force
        self._observe = observe
        self._reading = asyncio.Lock()

    async def __call__(self, payload: bytes, descriptor: int | None, waiting: Waiting) -> Reply | None:
        """Answer one request.

        Args:
            payload: the CNI_* variables and stdin, as `wire.join` packs them.
            descriptor: the netns.
            waiting: the clients; whether one still waits is asked on a worker, at the pod's turn.

        Returns:
            None if no client waits any more: nothing was done, and the pod must not count as set up.
        """
        started = time.perf_counter()
        request, answer = None, None
        try:
            request = await self._off_loop(len(payload), lambda: Request.parse(*wire.split(payload)))
            result = await self._carry_out(request, descriptor, waiting)
            answer = (0, request.result())
        except AbandonedError:
            result = _Done("abandoned", None, "the plugin gave up before the pod's turn came: nothing was done")
        except Exception as error:  # noqa: BLE001 - whatever it is, the runtime gets an error and the agent continues (F32)
            failure = _as_cni_error(error)
            result = _Done("error", None, failure.msg, failure.code)
            answer = (1, failure.encode(request.cni_version) if request else failure.encode())
        record = partial(self._observe, _outcome(request, result, time.perf_counter() - started))
        if answer:
            return Reply(*answer, record)
        record()
        return None

    async def _carry_out(self, request: Request, descriptor: int | None, waiting: Waiting) -> _Done:
        if request.command == "STATUS":
            if why := self._in_force.capability.unusable:
                raise CniError(Code.NOT_AVAILABLE, f"this node cannot redirect pods: {why}")
            return _Done("pass", None, "this node can redirect pods")
        fd = _pod_netns(descriptor)
        then, mismatch = await self._decide(request, _addresses(request))
        if isinstance(then, Pass):
            return _Done("pass", then.row, then.reason)
        if request.command == "CHECK":
            if difference := await self._workers.check(fd, then, self._in_force.capability, waiting.is_wanted):
                raise CniError(Code.REDIRECT_FAILED, f"the pod's redirect is not as it should be: {difference}")
            return _Done("redirect", "redirect", "the redirect is in place", mismatch=mismatch)
        done = partial(waiting.answer, 0, request.result())
        settled = (await self._workers.program(fd, then, self._in_force.capability, waiting.is_wanted, done)).settled
        bypassed = settled.bypassed
        note = (f"{', '.join(map(str, bypassed))} bypasses its sidecar",) if bypassed else ()
        return _Done(
            "redirect",
            "redirect",
            "; ".join((_MESHED, *settled.notes, *note)),
            bypassing=len(bypassed),
            mismatch=mismatch,
            families=settled.redirect.families,
            ipv6_off=settled.ipv6_off,
        )

    async def _off_loop(self, size: int, work: Callable[[], _T]) -> _T:
        """Run work that grows with its input: a lot of it off the loop, so that no pod, probe or signal waits.

        One at a time: each computing thread may hold the interpreter for 5 ms per turn.
        """
        if size <= LARGE_TEXT:
            return work()
        async with self._reading:
            return await asyncio.to_thread(work)

    async def _decide(self, request: Request, addresses: tuple[Address, ...]) -> _Decided:
        """Reach the verdict, without a lookup of the pod if possible.

        Raises:
            CniError: if the pod cannot be looked up.
            InvalidValue: if its annotations are invalid.
        """
        policy = self._in_force.policy
        passes = outside_mesh(request.namespace, request.pod, policy.excluded, request.annotations)
        if passes and not (passes is NEVER_INJECTED and self._lookup.knows_as_injected(request)):
            return _Decided(passes)
        pod, handed_over = await self._lookup.find(request), request.annotations
        texts = (*pod.annotations.values(), *of_the_mesh(handed_over or {}).values())
        weighing = partial(weigh, pod, handed_over, addresses, policy)
        verdict, mismatch = await self._off_loop(sum(map(len, texts)), weighing)
        if isinstance(verdict, InvalidValue):
            raise verdict
        if isinstance(verdict, Pass):
            return _Decided(verdict, mismatch)
        plan = Plan(verdict, addresses, lambda known: weigh(pod, handed_over, known, policy)[0], policy.defaults.ipv6)
        return _Decided(plan, mismatch)


def _outcome(request: Request | None, done: _Done, seconds: float) -> Outcome:
    return Outcome(
        command=request.command if request else "",
        namespace=request.namespace if request else "",
        pod=request.pod if request else "",
        container_id=request.container_id if request else "",
        outcome=done.outcome,
        row=done.row,
        reason=done.reason,
        code=done.code,
        seconds=seconds,
        bypassing=done.bypassing,
        mismatch=done.mismatch,
        pod_uid=request.pod_uid if request else None,
        families=done.families,
        ipv6_off=done.ipv6_off,
    )


def _pod_netns(descriptor: int | None) -> NetnsFd:
    """Check that CNI_NETNS is a pod's network namespace, before any rule is touched (F25).

    Raises:
        CniError: code 4.
    """
    if descriptor is None:
        raise CniError(Code.INVALID_ENVIRONMENT, "CNI_NETNS: no open netns came with the request, expected the pod's")
    fd = NetnsFd(descriptor)
    if not netns.is_network_namespace(fd):
        raise CniError(
            Code.INVALID_ENVIRONMENT, "CNI_NETNS: saw a file that is no network namespace, expected the pod's"
        )
    if netns.is_own(fd):
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            "CNI_NETNS: saw the node's own network namespace, expected the pod's. Its traffic is never redirected",
        )
    return fd


def _addresses(request: Request) -> tuple[Address, ...]:
    return tuple(map(_address, request.addresses))


def _address(text: str) -> Address:
    """Parse an address with a prefix length; `ipaddress.ip_interface` takes five times as long."""
    address, slash, bits = text.partition("/")
    with suppress(ValueError):
        found = ipaddress.ip_address(address)
        if not slash or (bits.isascii() and bits.isdecimal() and int(bits) <= found.max_prefixlen):
            return ipaddress.ip_address(found.packed) if "%" in address else found  # without a scope
    raise CniError(Code.INVALID_CONFIG, f"prevResult.ips: saw {text!r:.80}, expected an address with a prefix length")


def _as_cni_error(error: Exception) -> CniError:
    match error:
        case CniError():
            return error
        case InvalidValue():
            return CniError(Code.INVALID_CONFIG, str(error))
        case ApplyError():
            return CniError(Code.REDIRECT_FAILED, str(error))
    _log.exception("a request could not be answered: this is a bug in the agent")
    return CniError(Code.REDIRECT_FAILED, f"{type(error).__name__}: {error}; the agent's log has more")
