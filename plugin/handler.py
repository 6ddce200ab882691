"""What one request of a client gets: parse, decide, redirect, answer. It knows neither sockets nor Kubernetes."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from plugin import netns, wire
from plugin.apply import ApplyError
from plugin.cni import CniError, Code, Request
from plugin.decision import differing, weigh
from plugin.keys import STATUS, of_the_mesh
from plugin.netns import NetnsFd
from plugin.pod import PodsUnavailable
from plugin.prefilter import NEVER_INJECTED, Pass, outside_mesh
from plugin.program import Plan, Programmed, check, program
from plugin.rulecount import rule_count
from plugin.values import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor

    from plugin.backend import Capability
    from plugin.decision import Policy
    from plugin.pod import Pod, PodSource
    from plugin.redirect import Family, Redirect
    from plugin.values import Address


_T = TypeVar("_T")

LARGE_RULES = 100  # rules, from which on a pod waits for its like alone; usual are 20 to 40
LARGE_TEXT = 8192  # characters, which are read in a few milliseconds

MOST_TO_FREE = 32  # sockets or contexts of libnftables, of a megabyte each, that wait to be freed

_MESHED = "it is a meshed pod"

_log = logging.getLogger(__name__)


class Reply(NamedTuple):
    """Exit status and stdout for the client, and what is to be called once it has them: that tells log and metrics."""

    status: int
    stdout: bytes
    tell: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request, for log and metrics.

    `outcome` is redirect, pass, error or abandoned; `row` the short name of the decision table's row, where one decided;
    `code` that of CNI, 0 for success; `bypassing` the number of the pod's addresses whose traffic bypasses its sidecar;
    `families` those that are redirected, `ipv6_off` whether the pod's IPv6 does not work through its sidecar; `mismatch` what
    the runtime and the API server say differently about the pod.
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
    """What becomes of a pod: it passes, or the plan of its redirect; and how runtime and API server contradict each other."""

    then: Plan | Pass
    mismatch: str = ""


class InForce(Protocol):
    """What is in force on this node, as it is now."""

    @property
    def policy(self) -> Policy:
        """What the settings say about pods."""

    @property
    def capability(self) -> Capability:
        """What the chosen backend can do; STATUS fails if that is nothing."""


class _NobodyWaits(Exception):  # noqa: N818 - no mistake
    """The pod's turn has come, and nobody waits for it any more: its netns is left as it is."""


class Handler:
    """Answers requests; one for the agent's whole life."""

    def __init__(
        self,
        pods: PodSource,
        workers: Executor,
        large: Executor,
        freeing: Executor,
        *,
        in_force: InForce,
        observe: Callable[[Outcome], None],
    ) -> None:
        """Wire it.

        Args:
            pods: where the node's pods are known from.
            workers: threads that enter a pod's netns; nothing else may run on them.
            large: the same, for what takes many times as long as usual: the others' pods never wait for it.
            freeing: a thread that frees what they took, for which the kernel lets it wait 15 ms: no pod waits for that.
            in_force: asked at each request.
            observe: told what became of each request.
        """
        self._pods = pods
        self._workers = workers
        self._large = large
        self._freeing = freeing
        self._room_to_free = threading.BoundedSemaphore(MOST_TO_FREE)
        self._in_force = in_force
        self._observe = observe
        self._reading = asyncio.Lock()

    async def __call__(self, payload: bytes, descriptor: int | None, wanted: Callable[[], bool]) -> Reply | None:
        """Answer one request.

        Args:
            payload: the CNI_* variables and stdin, as `wire.join` packs them.
            descriptor: the netns.
            wanted: whether somebody still waits for the answer; asked on a worker, when the pod's turn has come.

        Returns:
            None if nobody waited any more: then nothing was done, and nobody may take the pod for set up.
        """
        started = time.perf_counter()
        request, answer = None, None
        try:
            request = await self._off_loop(len(payload), lambda: Request.parse(*wire.split(payload)))
            done = await self._carry_out(request, descriptor, wanted)
            answer = (0, request.result())
        except _NobodyWaits:
            done = _Done("abandoned", None, "the plugin gave up before the pod's turn came: nothing was done")
        except Exception as error:  # noqa: BLE001 - whatever it is: the runtime gets an error, and the agent goes on (F32)
            failure = _as_cni_error(error)
            done = _Done("error", None, failure.msg, failure.code)
            answer = (1, failure.encode(request.cni_version) if request else failure.encode())
        tell = partial(self._observe, _outcome(request, done, time.perf_counter() - started))
        if answer:
            return Reply(*answer, tell)
        tell()
        return None

    async def _carry_out(self, request: Request, descriptor: int | None, wanted: Callable[[], bool]) -> _Done:
        if request.command == "STATUS":
            if why := self._in_force.capability.unusable:
                raise CniError(Code.NOT_AVAILABLE, f"this node cannot redirect pods: {why}")
            return _Done("pass", None, "this node can redirect pods")
        fd = _pod_netns(descriptor)
        then, mismatch = await self._decide(request, _addresses(request))
        if isinstance(then, Pass):
            return _Done("pass", then.row, then.reason)
        if request.command == "CHECK":
            await self._check(fd, then, wanted)
            return _Done("redirect", "redirect", "the redirect is in place", mismatch=mismatch)
        settled = (await self._program(fd, then, wanted)).settled
        bypassed = settled.bypassed
        around = (f"{', '.join(map(str, bypassed))} bypasses its sidecar",) if bypassed else ()
        return _Done(
            "redirect",
            "redirect",
            "; ".join((_MESHED, *settled.notes, *around)),
            bypassing=len(bypassed),
            mismatch=mismatch,
            families=settled.redirect.families,
            ipv6_off=settled.ipv6_off,
        )

    async def _program(self, fd: NetnsFd, plan: Plan, wanted: Callable[[], bool]) -> Programmed:
        loop = asyncio.get_running_loop()
        programmed: asyncio.Future[Programmed] = loop.create_future()
        turn = partial(_if_wanted, wanted, partial(program, fd, plan, self._in_force.capability))
        self._lane(plan.redirect).submit(self._program_and_tell, turn, loop, programmed)
        return await programmed

    def _program_and_tell(
        self, turn: Callable[[], Programmed], loop: asyncio.AbstractEventLoop, programmed: asyncio.Future[Programmed]
    ) -> None:
        """Redirect a pod, on a worker, and have what that took freed: once the loop is told, as it takes long (D4)."""
        try:
            done = turn()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the waiting request's
            loop.call_soon_threadsafe(programmed.set_exception, error)
        else:
            loop.call_soon_threadsafe(programmed.set_result, done)
            self._free(done.free)

    def _free(self, free: Callable[[], None]) -> None:
        """Free what a pod took, on the thread for that; where many wait there already, on this one, as each holds memory."""
        if self._room_to_free.acquire(blocking=False):
            self._freeing.submit(free).add_done_callback(lambda _: self._room_to_free.release())
        else:
            free()

    async def _check(self, fd: NetnsFd, plan: Plan, wanted: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        turn = partial(_if_wanted, wanted, partial(check, fd, plan, self._in_force.capability))
        if difference := await loop.run_in_executor(self._lane(plan.redirect), turn):
            raise CniError(Code.REDIRECT_FAILED, f"the pod's redirect is not as it should be: {difference}")

    def _lane(self, redirect: Redirect) -> Executor:
        return self._large if rule_count(redirect) > LARGE_RULES else self._workers

    async def _off_loop(self, size: int, work: Callable[[], _T]) -> _T:
        """Do what takes longer the more there is to read: much of it where nobody's pod, probe or signal waits for it.

        One at a time: each thread that computes may keep the interpreter from the loop for 5 ms at each of its turns.
        """
        if size <= LARGE_TEXT:
            return work()
        async with self._reading:
            return await asyncio.to_thread(work)

    async def _decide(self, request: Request, addresses: tuple[Address, ...]) -> _Decided:
        """Reach the verdict, without the pod where that is enough.

        Raises:
            CniError: if the pod cannot be had.
            InvalidValue: if what it asks for does not validate.
        """
        policy = self._in_force.policy
        passes = outside_mesh(request.namespace, request.pod, policy.excluded, request.annotations)
        if passes and not (passes is NEVER_INJECTED and self._is_known_as_injected(request)):
            return _Decided(passes)
        pod, handed_over = await self._find(request), request.annotations
        texts = (*pod.annotations.values(), *of_the_mesh(handed_over or {}).values())
        weighing = partial(weigh, pod, handed_over, addresses, policy)
        verdict, mismatch = await self._off_loop(sum(map(len, texts)), weighing)
        if isinstance(verdict, InvalidValue):
            raise verdict
        if isinstance(verdict, Pass):
            return _Decided(verdict, mismatch)
        plan = Plan(verdict, addresses, lambda known: weigh(pod, handed_over, known, policy)[0], policy.defaults.ipv6)
        return _Decided(plan, mismatch)

    def _is_known_as_injected(self, request: Request) -> bool:
        known = self._pods.cached(request.namespace, request.pod, request.pod_uid)
        return known is not None and known.is_injected

    async def _find(self, request: Request) -> Pod:
        """Find the pod that the request is about.

        Raises:
            CniError: code 11, if it cannot be had, or cannot be told from another one of its name.
        """
        pod, handed_over = await self._ask(request), request.annotations
        if handed_over is not None and STATUS in handed_over and not pod.is_injected:
            pod = await self._ask(request, fresh=True)  # little is kept of what counts as outside the mesh
        if request.pod_uid is None and pod.uid:
            self._require_agreement(pod, handed_over)
        return pod

    @staticmethod
    def _require_agreement(pod: Pod, handed_over: Mapping[str, str] | None) -> None:
        """Hold a pod that was found by its name alone against what the runtime says of the one that it starts."""
        if handed_over is None:
            seen = "nothing but its name, which an earlier pod may have had" if pod.maybe_stale else ""
        else:
            seen = ", ".join(differing(pod, handed_over))
            seen = seen and f"another one's annotations ({seen} differ)"
        if seen:
            raise CniError(
                Code.TRY_AGAIN_LATER,
                f"pod {pod.namespace}/{pod.name} may be part of the mesh, and which pod of that name it is cannot be told: "
                f"saw {seen}, expected K8S_POD_UID, or the runtime's annotations and the API server's to agree. It is not "
                "started yet; it is tried again",
            )

    async def _ask(self, request: Request, *, fresh: bool = False) -> Pod:
        try:
            pod = await self._pods.find(request.namespace, request.pod, request.pod_uid, fresh=fresh)
        except PodsUnavailable as error:
            raise CniError(
                Code.TRY_AGAIN_LATER,
                f"pod {request.namespace}/{request.pod} may be part of the mesh and cannot be looked up now, so it is not "
                f"started yet; it is tried again: {error}",
            ) from error
        if pod is None:
            raise CniError(
                Code.TRY_AGAIN_LATER,
                f"no pod {request.namespace}/{request.pod} with uid {request.pod_uid}: deleted meanwhile? If not, it is "
                "tried again",
            )
        return pod


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


def _if_wanted(wanted: Callable[[], bool], work: Callable[[], _T]) -> _T:
    """Do the work of a pod whose turn has come; a client that has given up has asked again, or its pod is given up."""
    if not wanted():
        raise _NobodyWaits
    return work()


def _pod_netns(descriptor: int | None) -> NetnsFd:
    """Take what came as CNI_NETNS for a pod's network namespace, or refuse it before any rule is touched (F25).

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
    try:
        return ipaddress.ip_interface(text).ip
    except ValueError as error:
        message = f"prevResult.ips: saw {text!r:.80}, expected an address with a prefix length"
        raise CniError(Code.INVALID_CONFIG, message) from error


def _as_cni_error(error: Exception) -> CniError:
    match error:
        case CniError():
            return error
        case InvalidValue():
            return CniError(Code.INVALID_CONFIG, str(error))
        case ApplyError():
            return CniError(Code.REDIRECT_FAILED, str(error))
    _log.exception("a request could not be answered: this is a mistake in the agent")
    return CniError(Code.REDIRECT_FAILED, f"{type(error).__name__}: {error}; the agent's log has more")
