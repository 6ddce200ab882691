"""When the node is reconciled: on each change, and at the latest when the next check is due (D8).

Level-triggered: an event and a new desired state say "check again" and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from installer.agent.node import Node, UnusableError
from installer.agent.repairs import ConflictError, NotNowError
from installer.aio import first_ended
from installer.config.settings import PLUGIN
from installer.host import conf_dir
from installer.host.agent_lock import lock_file
from installer.host.exchange import OutdatedError
from installer.host.files import explain
from installer.host.inotify import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from installer.config.desired import DesiredState
    from installer.fleet.state import NodeState

RESYNC = 60.0  # seconds between full comparisons, including the plugin file's content (F10)
UNWATCHED_RESYNC = 1.0  # seconds, on a node without free inotify instances or watches
FIRST_RETRY, LONGEST_RETRY = 0.1, 30.0  # seconds, doubling, after an error
SHORTEST = 0.01  # seconds between two passes, at least
SHORTEST_UNUSABLE = 1.0  # the same, while the plugin file cannot be executed
MOST_OUTDATED = 500  # consecutive plans before it is reported: at least five seconds

_log = logging.getLogger(__name__)


class _Pass(NamedTuple):
    """The outcome of a pass, and when the next one is due.

    Attributes:
        reason: why the node is not as desired; empty if it is.
        not_before: seconds before the next pass, whatever happens.
        within: seconds to the next pass without an event.
    """

    reason: str = ""
    not_before: float = SHORTEST
    within: float = RESYNC


class Reconciler:
    """Keeps the node as desired while it runs."""

    def __init__(
        self,
        desired: Callable[[], DesiredState],
        serving: Callable[[], bool],
        on_change: Callable[[NodeState], None] = lambda _: None,
    ) -> None:
        """Prepare.

        Call `wake` when `desired` or `serving` would return something else. `on_change` gets each new state, in the
        reconciler's thread.
        """
        self._node = Node(desired, serving)
        self._on_change = on_change
        self.state = self._node.state  # as of the last pass
        self._failures = 0  # consecutive errors
        self._outdated = 0  # consecutive plans that were outdated before they were applied
        self._woken = threading.Event()
        self._closing = threading.Event()

    def wake(self) -> None:
        """Trigger a check now; callable from any thread."""
        self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the node as desired until told to stop. The installation stays (D7).

        The work runs in a thread of its own, which events wake directly: neither a busy event loop nor the work of
        other threads comes between a change on the node and its repair.
        """
        thread = ThreadPoolExecutor(1, "reconcile")
        work = asyncio.get_running_loop().run_in_executor(thread, self._loop)
        try:
            await first_ended(stop, work)
        finally:
            self._closing.set()
            self._woken.set()
            thread.shutdown(wait=False)  # it may never end (F48)
        await work

    def _loop(self) -> None:
        watcher = self._watcher()
        full_at = 0.0
        while not self._closing.is_set():
            self._woken.clear()
            watched = watcher.refresh()
            started = time.monotonic()
            if full := started >= full_at:
                full_at = started + RESYNC
            outcome = self._reconcile(full=full)
            self._report(outcome.reason)
            next_check = min(started + outcome.within, full_at if watched else started + UNWATCHED_RESYNC)
            next_check = min(next_check, self._node.next_check or next_check)
            self._closing.wait(outcome.not_before)
            self._woken.wait(max(0.0, next_check - time.monotonic()))
        watcher.close()

    def _reconcile(self, *, full: bool) -> _Pass:
        failures, self._failures = self._failures, 0
        outdated, self._outdated = self._outdated, 0
        try:
            if self._node.reconcile_once(full=full):
                self._woken.set()
        except ConflictError as error:
            return _Pass(str(error), error.wait, error.wait)  # events trigger no earlier pass
        except UnusableError as error:
            return _Pass(str(error), not_before=SHORTEST_UNUSABLE)
        except NotNowError as error:
            self._failures = failures
            return _Pass(str(error))
        except OutdatedError as error:
            self._failures, self._outdated = failures, outdated + 1
            self._woken.set()
            if outdated >= MOST_OUTDATED:
                return _Pass(f"{error}, repeatedly", not_before=1.0)
        except OSError as error:
            self._failures = min(failures + 1, 10)
            return _Pass(explain(error), within=min(LONGEST_RETRY, FIRST_RETRY * 2**failures))
        except Exception as error:  # noqa: BLE001 - whatever a directory holds, the agent continues to serve pods
            _log.exception("reconciling the node failed")
            return _Pass(f"{type(error).__name__}: {error}", within=LONGEST_RETRY)
        return _Pass()

    def _report(self, reason: str) -> None:
        before, now = self.state, self._node.report(reason)
        if now.reason and now.reason != before.reason:
            _log.warning("not installed", extra={"reason": now.reason})
        if now == before:
            return
        if before.conflict and now.installed:
            _log.warning("installed: the other program has stopped undoing it")
        self.state = now
        self._on_change(now)

    def _watcher(self) -> Watcher:
        settings, socket = self._node.settings, self._node.settings.agent_socket
        interest: dict[Path, Callable[[str], bool]] = {
            settings.bin_dir_mount: PLUGIN.__eq__,
            settings.conf_dir_mount: lambda name: conf_dir.of_interest(name) or name in self._node.linked,
            socket.parent: {socket.name, lock_file(socket).name}.__contains__,
        }
        on_node = {settings.bin_dir_mount: settings.cni_bin_dir, settings.conf_dir_mount: settings.cni_conf_dir}
        return Watcher(interest, lambda _: self.wake(), on_node)
