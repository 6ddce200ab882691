"""This node's installation: the plugin file in cniBinDir, and its entry in the configuration that the runtime takes.

One pass compares the current state with the desired one and acts on the difference (D8); it recognises our own writes by
their content. It follows the order of D6: the plugin file first, the entry last, once the agent serves. It removes both in
reverse order.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from installer.agent.conflist_entry import ConflistEntry
from installer.agent.repairs import NotNowError, Repairs
from installer.cniconfig.meshes import ISTIOS, is_istios_plugin
from installer.config.settings import PLUGIN
from installer.fleet.state import NodeState
from installer.host.binary import PluginFile
from installer.host.directory import Directory
from installer.host.trial import NotExecutableError
from installer.host.uninstall import remove_entry, remove_installed

if TYPE_CHECKING:
    from collections.abc import Callable

    from installer.config.desired import DesiredState
    from installer.config.settings import Settings

_log = logging.getLogger(__name__)


class UnusableError(NotNowError):
    """The plugin file cannot be executed: no entry names it, and events trigger no immediate pass."""


class Node:
    """The installation, and its state between passes. Not thread-safe."""

    def __init__(self, desired: Callable[[], DesiredState], serving: Callable[[], bool]) -> None:
        """Prepare; `serving` returns whether the agent answers on its socket."""
        self._desired_now = desired
        self._serving = serving
        self._desired = desired()
        self._plugin = PluginFile(self.settings.plugin_file)
        self._repairs = Repairs()
        self._entry = ConflistEntry(self._repairs)
        self.state = NodeState()

    @property
    def settings(self) -> Settings:
        """The settings of the last pass."""
        return self._desired.settings

    @property
    def linked(self) -> frozenset[str]:
        """The files of cniConfDir that symbolic links in it point to."""
        return self._entry.linked

    @property
    def next_check(self) -> float | None:
        """The monotonic time of the next pass that needs no event; None: none is due."""
        cooldown = self._repairs.cooldown_left
        moments = (self._entry.next_check, time.monotonic() + cooldown if cooldown else None)
        return min((each for each in moments if each is not None), default=None)

    def reconcile_once(self, *, full: bool) -> bool:
        """Compare the node with the desired state and correct it; `state` holds the outcome.

        A full pass also reads the plugin file and deletes leftovers of killed agents beside it.

        Returns:
            Whether something was changed. Only a pass that changes nothing reports the node as installed.

        Raises:
            NotNowError: if something else has to happen first.
            OutdatedError: if another program has changed a file meanwhile.
            OSError: if a file could not be read or written.
        """
        desired = self._desired_now()
        if desired.by_value != self._desired.by_value:
            self._repairs.was_installed = False  # this change is not a repair
        self._desired = desired
        if not desired.installed:
            self._repairs.end_conflict()
            return self._uninstall()
        try:
            return self._install(full=full)
        finally:
            repairs, entry = self._repairs, self._entry
            state = replace(self.state, repairs=repairs.count, last_repair=repairs.last)
            self.state = replace(state, meshes=entry.meshes, skipped=entry.skipped)

    def report(self, reason: str) -> NodeState:
        """Return the state after a pass; during a conflict the node counts as not installed, even between two foreign writes.

        `reason` says why the pass did not finish; it is empty if it did.
        """
        if reason := self._repairs.conflict or reason:
            state = replace(self.state, installed=False, removed=False, conflict=bool(self._repairs.conflict))
            self.state = replace(state, reason=reason, conflist=None)
        return self.state

    def _install(self, *, full: bool) -> bool:
        try:
            changed = self._install_plugin(full=full)
        except NotExecutableError as error:
            self._withdraw_entry(str(error))
            raise UnusableError(str(error)) from error
        if not self._serving():
            raise NotNowError("the agent does not serve its socket")
        changed |= self._entry.keep(self.settings)
        if installed := self._entry.installed:
            self._repairs.was_installed = True
            state = replace(self.state, installed=True, removed=False, conflict=False, stays="", reason=None)
            self.state = replace(state, conflist=installed.conflist, form=installed.form, digest=self._plugin.digest)
        return changed

    def _install_plugin(self, *, full: bool) -> bool:
        with Directory(self.settings.cni_bin_dir, self.settings.bin_dir_mount) as folder:
            if full:
                folder.sweep()
            if not full and (fault := self._plugin.fault(folder)):
                raise fault
            changes = not self._plugin.is_right(folder, full=full)
            if changes:
                undone = partial(_undone, folder) if folder.stat(PLUGIN) else lambda: "deletes the file"
                self._repairs.change(folder.path / PLUGIN, lambda: self._plugin.put(folder), undone)
            self._plugin.try_out(folder)
            return changes

    def _withdraw_entry(self, reason: str) -> None:
        """Remove an entry whose plugin cannot be executed: with it no pod starts or stops on this node.

        A mesh pod that starts meanwhile waits in its validation container, or pod repair finds it.
        """
        self._repairs.was_installed = False  # later changes are not repairs
        for step in remove_entry(self.settings):
            _log.warning(step.text, extra={"file": str(step.path), "reason": reason})

    def _uninstall(self) -> bool:
        """Uninstall: the entry first, the plugin file last."""
        changed, stays = False, ""
        for step in remove_installed(self.settings):
            if step.stays:
                stays = step.text
            else:
                changed = True
                _log.warning(step.text, extra={"file": str(step.path), "reason": self._desired.reason})
        if not changed:
            if stays and stays != self.state.stays:
                _log.warning(stays)
            self._entry.skipped = ()
            state = replace(self.state, installed=False, removed=True, conflict=False, stays=stays)
            self.state = replace(state, reason=None, conflist=None, skipped=())
        return changed


def _undone(folder: Directory) -> str:
    with suppress(OSError):
        if is_istios_plugin(folder.pieces(PLUGIN)):
            return f"replaces the file with that of {ISTIOS}: uninstall one of the two (install-cni status)"
    return "changes the file or its permissions"
