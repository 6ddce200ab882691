"""Keeping the node as it should be: the plugin file in cniBinDir, and its entry in the conflist that the runtime takes.

Level-triggered (D8): one look compares what is there with what should be, and acts on the difference. Events and new orders
say "look again" and nothing else; our own writes are recognised by their content. In the order of D6: the plugin file
first, and the entry last, when the agent serves; and the other way round where the plugin is to be out of the node.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from installer.cniconfig import plan
from installer.cniconfig.meshes import ISTIOS, OTHERS, is_istios_plugin, other_meshes
from installer.config.desired import DesiredState
from installer.config.settings import PLUGIN, Settings, build_entry
from installer.fleet.state import Form, NodeState, Repair
from installer.host import conf_dir
from installer.host.binary import PluginFile
from installer.host.exchange import BusyError, OutdatedError
from installer.host.files import Directory, explain, lock_file
from installer.host.inotify import Watcher
from installer.host.trial import NotExecutableError
from installer.host.uninstall import take_entry_out, take_out
from installer.ratelimit.limiter import REPAIRS, RateLimiter

STANDALONE = "istio-cni.conf"  # where the plugin has a configuration of its own and no other name is set
RESYNC = 60.0  # seconds after which all is looked at, the plugin file's content too, whatever events say (F10)
UNWATCHED_RESYNC = 1.0  # seconds, on a node that has no inotify left
FIRST_RETRY, LONGEST_RETRY = 0.1, 30.0  # seconds, doubling, after an error
UNUSABLE_BREATH = 1.0  # seconds likewise, while the plugin file cannot be executed
BREATH = 0.01  # seconds between two looks at least, however many events there are
PATIENCE = (
    2.0  # seconds for who has a file open for writing that is to be changed: few write longer, and NFS cannot tell
)
GONE = 30.0  # seconds for which a list of our own stays without its source, where one is wanted: primaries restart
MOST_OUTDATED = 500  # plans in a row before it is told: at least five seconds

_log = logging.getLogger(__name__)


class NotNowError(Exception):
    """The node cannot be made as it should be for now, until something else happens; the message says why."""


class UnusableError(NotNowError):
    """The plugin file cannot be executed: no entry names it, and what others write is no reason to look at once."""


class ConflictError(NotNowError):
    """Another program keeps undoing the installation: it is repaired in `again` seconds, not before (F9)."""

    def __init__(self, message: str, again: float) -> None:
        super().__init__(message)
        self.again = again


@dataclass
class Node:
    """The node's two directories, and what is known of them from one look to the next. For one thread."""

    orders: Callable[[], DesiredState]
    serving: Callable[[], bool]
    state: NodeState = field(default_factory=NodeState)

    def __post_init__(self) -> None:
        self._desired = self.orders()
        self._plugin = PluginFile(self.settings.plugin_file)
        self._limiter = RateLimiter(REPAIRS)
        self._conflict = ""
        self._was_installed = False
        self._busy_since: float | None = None  # another program has a file open for writing that is to be changed
        self._gone_since: float | None = None  # the source of a list of our own is gone
        self._own: bytes | None = None  # what we have put into the list of our own
        self._following = RateLimiter(
            REPAIRS
        )  # a list of our own follows its source; who writes that in a loop is followed slowly
        self._follow_at: float | None = None
        self.linked: frozenset[str] = frozenset()  # the files of cniConfDir that links there mean
        self._warned: set[tuple[str, str, int]] = set()

    def reconcile_once(self, *, full: bool) -> bool:
        """Compare the node with what it should be, and make it so; `state` says what came of it.

        Args:
            full: read the plugin file too, and sweep what killed agents left beside it.

        Returns:
            Whether something was done. Only a look that finds nothing to do says that the node is installed.

        Raises:
            NotNowError: if something has to happen before.
            OutdatedError: if another program has changed a file meanwhile.
            OSError: if a file could not be read or written.
        """
        orders = self.orders()
        if orders.by_value != self._desired.by_value:
            self._was_installed = False  # what is done now is no repair
        self._desired = orders
        if not orders.installed:
            self._conflict = ""
            return self._keep_out()
        try:
            acted = self._keep_plugin(full=full)
        except NotExecutableError as error:
            self._withdraw_entry(str(error))
            raise UnusableError(str(error)) from error
        if not self.serving():
            raise NotNowError("the agent does not serve its socket")
        return self._keep_entry() or acted

    @property
    def settings(self) -> Settings:
        """Those in force."""
        return self._desired.settings

    def conflict(self) -> tuple[str, float]:
        """Say what another program keeps undoing, and in how many seconds that is over if it lets it be.

        From the first repair that had to wait until the cooldown is over, the words are the same: what is put in
        place between two of its writes is there for a moment, and the runtime has started pods without it.

        Returns:
            An empty text and 0 if there is no conflict.
        """
        cooldown = self._limiter.cooldown_left(time.monotonic()) if self._conflict else 0.0
        if not cooldown:
            self._conflict = ""
        return self._conflict, cooldown

    def _keep_out(self) -> bool:
        """Take out what is there: the entry first, the plugin file last."""
        done, stays = False, ""
        for step in take_out(self.settings):
            if step.stays:
                stays = step.text
            else:
                done = True
                _log.warning(step.text, extra={"file": str(step.path), "reason": self._desired.reason})
        if not done:
            if stays and stays != self.state.stays:
                _log.warning(stays)
            state = replace(self.state, installed=False, removed=True, conflict=False, stays=stays)
            self.state = replace(state, reason=None, conflist=None, skipped=())
        return done

    def _keep_plugin(self, *, full: bool) -> bool:
        with Directory(self.settings.cni_bin_dir, self.settings.bin_dir_mount) as folder:
            if full:
                folder.sweep()
            if not full and (fault := self._plugin.fault(folder)):
                raise fault
            if self._plugin.is_right(folder, full=full):
                self._plugin.try_out(folder)
                return False
            there = folder.stat(PLUGIN)
            undone = partial(self._undone, folder) if there else lambda: "deletes the file"
            self._mend(folder.path / PLUGIN, lambda: self._plugin.put(folder), undone)
            self._plugin.try_out(folder)
            return True

    @staticmethod
    def _undone(folder: Directory) -> str:
        with suppress(OSError):
            if is_istios_plugin(folder.pieces(PLUGIN)):
                return f"replaces the file with that of {ISTIOS}: uninstall one of the two (install-cni status)"
        return "changes the file or its permissions"

    def _withdraw_entry(self, reason: str) -> None:
        """Take out an entry whose plugin cannot be executed: with it no pod starts or stops on this node.

        A meshed pod that starts meanwhile waits in its validation container, or is found while it runs.
        """
        self._was_installed = False  # what is done afterwards is no repair
        for step in take_entry_out(self.settings):
            _log.warning(step.text, extra={"file": str(step.path), "reason": reason})

    def _keep_entry(self) -> bool:
        with Directory(self.settings.cni_conf_dir, self.settings.conf_dir_mount) as folder:
            conf_dir.sweep(folder)
            listing = conf_dir.listing(folder)
            links = conf_dir.links(folder, listing)
            self.linked = frozenset(filter(None, links.values()))
            try:
                if not self.settings.chained:
                    return self._keep_standalone(folder, listing, links)
                return self._keep_chained(folder, listing, links)
            except plan.NameInTheWayError as error:
                raise NotNowError(f"{folder.path}: {error}") from error

    def _keep_chained(self, folder: Directory, listing: plan.Listing, links: plan.Links) -> bool:
        settings, wanted = self.settings, build_entry(self.settings)
        choice = plan.choose(listing, settings.cni_conf_file_name)
        self._skip(choice.skipped, listing)
        owned = settings.istio_owned_cni_config_file_name if settings.istio_owned_cni_config else None
        find = partial(plan.place, listing, settings.cni_conf_file_name, owned=owned, links=links)
        waits = self._waits(gone=owned is not None and find(waits=True) != find())
        to = find(waits=waits)
        steps = plan.plan(listing, wanted, settings.cni_conf_file_name, owned=owned, links=links, waits=waits)
        if to is None:
            if not steps:
                raise NotNowError(f"{folder.path}: {choice.reason}")
            self._carry_out(folder, steps)
            _log.warning("deleted the plugin's own configuration: its source is gone", extra={"reason": choice.reason})
            return True
        if steps:
            act, path = partial(self._put_entry, folder, steps, to), folder.path / to.name
            if to.is_own and self._own is not None and listing.get(to.name) == self._own:  # nobody has undone anything
                return self._follow(act, path, to.source)
            self._mend(path, act, lambda: plan.undone(listing, to, wanted))
            return True
        held = listing[to.name]
        self._name_meshes(folder.path / to.name, other_meshes(held) if isinstance(held, bytes) else ())
        self._follow_at = None
        self._own = held if to.is_own and isinstance(held, bytes) else None
        self._is_installed(to.name, Form.OWNED if to.is_own else Form.CHAINED)
        return False

    def _name_meshes(self, path: Path, found: tuple[str, ...]) -> None:
        """Say once which other meshes redirect pods of this node as well."""
        if found and found != self.state.meshes:
            names = ", ".join(f"{each} ({OTHERS[each]})" for each in found)
            _log.warning("another mesh's plugin is in the same chain", extra={"file": str(path), "plugins": names})
        self.state = replace(self.state, meshes=found)

    def _put_entry(self, folder: Directory, steps: Sequence[plan.Step], to: plan.Place) -> None:
        self._carry_out(folder, steps)
        for step in steps:
            if to.is_own and step.name == to.name and isinstance(step, plan.Write):
                self._own = step.content

    def _follow(self, act: Callable[[], None], path: Path, source: str) -> bool:
        """Have a list of our own follow its source, now or when it is time for that."""
        now = time.monotonic()
        wait = self._following.wait(now)
        self._follow_at = now + wait if wait else None
        if wait:
            return False
        act()
        self._following.done(now)
        _log.info("updated the plugin's own configuration from its source", extra={"file": str(path), "source": source})
        return True

    def _waits(self, *, gone: bool) -> bool:
        """Say whether a list of our own stays without its source: for a while, as primaries delete theirs when they start."""
        now = time.monotonic()
        self._gone_since = (self._gone_since or now) if gone else None
        return self._gone_since is not None and now < self._gone_since + GONE

    @property
    def look_again(self) -> float:
        """In how many seconds at most there is something to look at, though nothing may happen until then."""
        moments = [self._follow_at, None if self._gone_since is None else self._gone_since + GONE]
        return max(BREATH, min((each - time.monotonic() for each in moments if each is not None), default=RESYNC))

    def _keep_standalone(self, folder: Directory, listing: plan.Listing, links: plan.Links) -> bool:
        name = self.settings.cni_conf_file_name or STANDALONE
        if not name.endswith(plan.SINGLE):
            raise NotNowError(
                f"cniConfFileName: saw {name}, expected the name of a .conf or .json, as chained is false: the plugin has a "
                "configuration of its own"
            )
        if steps := plan.plan_standalone(listing, build_entry(self.settings), name, links):
            undone = "changes the file, or adds the plugin to others" if name in listing else "deletes the file"
            self._mend(folder.path / name, lambda: self._carry_out(folder, steps), lambda: undone)
            return True
        self._is_installed(name, Form.STANDALONE)
        return False

    def _carry_out(self, folder: Directory, steps: Sequence[plan.Step]) -> None:
        """Change cniConfDir; wait for a while for who has a file of it open for writing."""
        now = time.monotonic()
        try:
            conf_dir.carry_out(folder, steps, patient=now < (self._busy_since or now) + PATIENCE)
        except BusyError:
            self._busy_since = self._busy_since or now
            raise

    def _is_installed(self, name: str, form: Form) -> None:
        self._was_installed = True
        self._busy_since = None
        state = replace(self.state, installed=True, removed=False, conflict=False, stays="", reason=None)
        self.state = replace(state, conflist=name, form=form, digest=self._plugin.digest)

    def _mend(self, path: Path, act: Callable[[], None], undone: Callable[[], str]) -> None:
        """Act on a difference. Once all was in place, that is a repair, and is rate-limited.

        Args:
            path: the file.
            act: mends it.
            undone: tells what others do to it; asked in a conflict alone.
        """
        now = time.monotonic()
        if self._was_installed and (wait := self._limiter.wait(now)):
            self._conflict = self._conflict or (
                f"{path}: another program keeps undoing the installation: it {undone()}. It is repaired again and again, and "
                "pods that start in between do so without the plugin: find out who writes there, such as by "
                f"auditctl -w {path} -p wa, and stop that"
            )
            raise ConflictError(self._conflict, wait)
        act()
        if self._was_installed:
            self._limiter.done(now)
            self.state = replace(self.state, repairs=self.state.repairs + 1, last_repair=Repair(time.time(), str(path)))
            _log.warning("repaired: another program had undone the installation", extra={"file": str(path)})
        else:
            _log.info("installed", extra={"file": str(path)})

    def _skip(self, skipped: Mapping[str, str], listing: Mapping[str, bytes | OSError]) -> None:
        """Warn of each file that no runtime can read, once as long as it stays as it is (F13)."""
        self.state = replace(self.state, skipped=tuple(skipped.items()))
        seen = set()
        for name, reason in skipped.items():
            content = listing[name]
            seen.add((name, reason, hash(content) if isinstance(content, bytes) else 0))
        for name, reason, _ in sorted(seen - self._warned):
            file = str(self.settings.cni_conf_dir / name)
            _log.warning("skipped: no valid network configuration", extra={"file": file, "reason": reason})
        self._warned = seen


class _Came(NamedTuple):
    """What came of a look: why the node is not as it should be, and after how many seconds it is looked at again.

    Attributes:
        reason: empty if nothing is to be said.
        breath: seconds at least, whatever happens.
        pause: seconds at most.
    """

    reason: str = ""
    breath: float = BREATH
    pause: float = RESYNC


class Reconciler:
    """Keeps the node installed while it runs."""

    def __init__(
        self,
        orders: Callable[[], DesiredState],
        serving: Callable[[], bool],
        on_change: Callable[[NodeState], None] = lambda _: None,
    ) -> None:
        """Prepare.

        Args:
            orders: what the node is to be like, as it is now; call `wake` when that changes.
            serving: tells whether the agent answers on its socket; call `wake` when that changes.
            on_change: told each new state, in the reconciler's thread.
        """
        self._node = Node(orders, serving)
        self._on_change = on_change
        self._told = self._node.state
        self._failures = 0  # errors in a row
        self._outdated = 0  # plans in a row that were out of date before they were carried out
        self._woken = threading.Event()
        self._closing = threading.Event()

    @property
    def state(self) -> NodeState:
        """What the last look saw and did."""
        return self._told

    def wake(self) -> None:
        """Have it look again now; from any thread."""
        self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the node installed until told to stop. What is installed stays (D7).

        All work is done in a thread of its own, which events wake directly: neither a busy event loop nor the work of
        other threads comes between a change on the node and its repair.
        """
        with ThreadPoolExecutor(1, "reconcile") as thread:
            work = asyncio.get_running_loop().run_in_executor(thread, self._work)
            told = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait((work, told), return_when=asyncio.FIRST_COMPLETED)
            finally:
                told.cancel()
                self._closing.set()
                self._woken.set()
            await work

    def _work(self) -> None:
        watcher = self._watcher()
        next_resync = 0.0
        while not self._closing.is_set():
            self._woken.clear()
            watching = watcher.refresh()
            now = time.monotonic()
            if full := now >= next_resync:
                next_resync = now + RESYNC
            came = self._look(full=full)
            conflict, cooldown = self._node.conflict()
            if conflict or came.reason:
                self._not_installed(conflict or came.reason, conflict=bool(conflict))
            self._tell()
            looked = min(next_resync - now if watching else UNWATCHED_RESYNC, self._node.look_again)
            pause = min(came.pause, looked, cooldown or RESYNC)
            self._closing.wait(came.breath)
            self._woken.wait(max(0.0, pause - came.breath))
        watcher.close()

    def _look(self, *, full: bool) -> _Came:
        failures, self._failures = self._failures, 0
        outdated, self._outdated = self._outdated, 0
        try:
            if self._node.reconcile_once(full=full):
                self._woken.set()
        except ConflictError as error:
            return _Came(breath=error.again, pause=error.again)  # events are no reason to look before
        except UnusableError as error:
            return _Came(str(error), breath=UNUSABLE_BREATH)
        except NotNowError as error:
            self._failures = failures
            return _Came(str(error))
        except OutdatedError as error:
            self._failures, self._outdated = failures, outdated + 1
            self._woken.set()
            if outdated >= MOST_OUTDATED:
                return _Came(f"{error}, again and again", breath=1.0)
        except OSError as error:
            self._failures = min(failures + 1, 10)
            return _Came(explain(error), pause=min(LONGEST_RETRY, FIRST_RETRY * 2**failures))
        except Exception as error:  # noqa: BLE001 - whatever a directory holds, the agent goes on serving pods
            _log.exception("looking at the node failed")
            return _Came(f"{type(error).__name__}: {error}", pause=LONGEST_RETRY)
        return _Came()

    def _watcher(self) -> Watcher:
        settings, socket = self._node.settings, self._node.settings.agent_socket
        interest: dict[Path, Callable[[str], bool]] = {
            settings.bin_dir_mount: PLUGIN.__eq__,
            settings.conf_dir_mount: lambda name: conf_dir.of_interest(name) or name in self._node.linked,
            socket.parent: {socket.name, lock_file(socket).name}.__contains__,
        }
        return Watcher(interest, self.wake)

    def _not_installed(self, reason: str, *, conflict: bool) -> None:
        if reason != self._told.reason:
            _log.warning("not installed", extra={"reason": reason})
        state = replace(self._node.state, installed=False, removed=False, conflict=conflict)
        self._node.state = replace(state, reason=reason, conflist=None)

    def _tell(self) -> None:
        if self._node.state != self._told:
            if self._told.conflict and self._node.state.installed:
                _log.warning("installed: no other program undoes it any more")
            self._told = self._node.state
            self._on_change(self._told)
