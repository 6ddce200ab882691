"""The plugin's entry in cniConfDir: in the configuration that the runtime reads, in a list of its own, or standalone."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from installer.agent.repairs import NotNowError, Repairs
from installer.cniconfig import placement, plan
from installer.cniconfig.listing import SINGLE, Links, Listing
from installer.cniconfig.meshes import OTHERS, other_meshes
from installer.config.settings import build_entry
from installer.fleet.state import Form
from installer.host import conf_dir
from installer.host.directory import Directory
from installer.host.exchange import BusyError
from installer.ratelimit.limiter import REPAIRS, RateLimiter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from installer.config.settings import Settings

STANDALONE = "istio-cni.conf"  # the standalone configuration, unless the setting names another file
PATIENCE = 2.0  # seconds to wait for a writer of a file: few write longer, and NFS cannot tell
SOURCE_GRACE = 30.0  # seconds that our own list outlives its source, where one is wanted: primaries restart

_log = logging.getLogger(__name__)


class Installed(NamedTuple):
    """The file of cniConfDir that holds the entry, and its form."""

    conflist: str
    form: Form


class ConflistEntry:
    """Maintains the entry. Not thread-safe.

    Attributes:
        installed: the location of the entry, if the last pass found nothing to change; None otherwise.
        linked: the files of cniConfDir that symbolic links in it point to.
        meshes: the types of other meshes' plugins in the same chain.
        skipped: files in cniConfDir that are not a valid network configuration, each with the reason.
    """

    def __init__(self, repairs: Repairs) -> None:
        self._repairs = repairs
        self.installed: Installed | None = None
        self.linked: frozenset[str] = frozenset()
        self.meshes: tuple[str, ...] = ()
        self.skipped: tuple[tuple[str, str], ...] = ()
        self._busy_since: float | None = None  # since when another program holds the file to change open for writing
        self._gone_since: float | None = None  # since when the source of our own list is missing
        self._own: bytes | None = None  # the content last written into our own list
        self._following = RateLimiter(REPAIRS)  # updates of our own list from its source
        self._follow_at: float | None = None
        self._warned: set[tuple[str, str, int]] = set()

    @property
    def next_check(self) -> float | None:
        """The monotonic time of the next check that needs no event; None: no check is due."""
        moments = (self._follow_at, None if self._gone_since is None else self._gone_since + SOURCE_GRACE)
        return min((each for each in moments if each is not None), default=None)

    def keep(self, settings: Settings) -> bool:
        """Compare cniConfDir with the desired state, correct it, and return whether something was changed.

        Raises:
            NotNowError: if something else has to happen first.
            OutdatedError: if another program has changed a file meanwhile.
            OSError: if a file could not be read or written.
        """
        self.installed = None
        with Directory(settings.cni_conf_dir, settings.conf_dir_mount) as folder:
            conf_dir.sweep(folder)
            listing = conf_dir.listing(folder)
            links = conf_dir.links(folder, listing)
            self.linked = frozenset(filter(None, links.values()))
            try:
                if not settings.chained:
                    return self._keep_standalone(settings, folder, listing, links)
                return self._keep_chained(settings, folder, listing, links)
            except placement.NameInTheWayError as error:
                raise NotNowError(f"{folder.path}: {error}") from error

    def _keep_chained(self, settings: Settings, folder: Directory, listing: Listing, links: Links) -> bool:
        entry, name = build_entry(settings), settings.cni_conf_file_name
        choice = placement.choose(listing, name)
        self._warn_of_skipped(folder, choice.skipped, listing)
        owned = settings.istio_owned_cni_config_file_name if settings.istio_owned_cni_config else None
        find = partial(placement.place, listing, name, owned=owned, links=links)
        waits = self._outlives_source(gone=owned is not None and find(waits=True) != find())
        place = find(waits=waits)
        steps = plan.plan_chained(listing, entry, name, owned=owned, links=links, waits=waits)
        if place is None:
            if not steps:
                raise NotNowError(f"{folder.path}: {choice.reason}")
            self._carry_out(folder, steps)
            _log.warning("deleted the plugin's own configuration: its source is gone", extra={"reason": choice.reason})
            return True
        if steps:
            write, path = partial(self._write, folder, steps, place), folder.path / place.name
            if place.is_own and self._own is not None and listing.get(place.name) == self._own:  # not a repair
                return self._follow(write, path, place.source)
            self._repairs.change(path, write, lambda: plan.undone(listing, place, entry))
            return True
        content = listing[place.name]
        self._warn_of_meshes(folder.path / place.name, other_meshes(content) if isinstance(content, bytes) else ())
        self._follow_at = None
        self._own = content if place.is_own and isinstance(content, bytes) else None
        self._record_installed(place.name, Form.OWNED if place.is_own else Form.CHAINED)
        return False

    def _keep_standalone(self, settings: Settings, folder: Directory, listing: Listing, links: Links) -> bool:
        name = settings.cni_conf_file_name or STANDALONE
        if not name.endswith(SINGLE):
            raise NotNowError(
                f"cniConfFileName: saw {name}, expected the name of a .conf or .json, as chained is false: the plugin has a "
                "configuration of its own"
            )
        if steps := plan.plan_standalone(listing, build_entry(settings), name, links):
            undone = "changes the file, or adds the plugin to others" if name in listing else "deletes the file"
            self._repairs.change(folder.path / name, lambda: self._carry_out(folder, steps), lambda: undone)
            return True
        self._record_installed(name, Form.STANDALONE)
        return False

    def _record_installed(self, name: str, form: Form) -> None:
        self.installed = Installed(name, form)
        self._busy_since = None

    def _write(self, folder: Directory, steps: Sequence[plan.Step], place: placement.Place) -> None:
        self._carry_out(folder, steps)
        for step in steps:
            if place.is_own and step.name == place.name and isinstance(step, plan.Write):
                self._own = step.content

    def _carry_out(self, folder: Directory, steps: Sequence[plan.Step]) -> None:
        """Change cniConfDir; wait up to `PATIENCE` for a program that has a file of it open for writing."""
        now = time.monotonic()
        try:
            conf_dir.carry_out(folder, steps, patient=now < (self._busy_since or now) + PATIENCE)
        except BusyError:
            self._busy_since = self._busy_since or now
            raise

    def _follow(self, act: Callable[[], None], path: Path, source: str) -> bool:
        """Update our own list from its source, now or when the rate limit allows it."""
        now = time.monotonic()
        wait = self._following.wait(now)
        self._follow_at = now + wait if wait else None
        if wait:
            return False
        act()
        self._following.done(now)
        _log.info("updated the plugin's own configuration from its source", extra={"file": str(path), "source": source})
        return True

    def _outlives_source(self, *, gone: bool) -> bool:
        """Return whether our own list stays without its source: briefly, as primaries delete theirs at their start."""
        now = time.monotonic()
        self._gone_since = (self._gone_since or now) if gone else None
        return self._gone_since is not None and now < self._gone_since + SOURCE_GRACE

    def _warn_of_meshes(self, path: Path, found: tuple[str, ...]) -> None:
        """Log once which other meshes also redirect pods of this node."""
        if found and found != self.meshes:
            names = ", ".join(f"{each} ({OTHERS[each]})" for each in found)
            _log.warning("another mesh's plugin is in the same chain", extra={"file": str(path), "plugins": names})
        self.meshes = found

    def _warn_of_skipped(self, folder: Directory, skipped: Mapping[str, str], listing: Listing) -> None:
        """Warn once about each version of a file that no runtime can read (F13)."""
        self.skipped = tuple(skipped.items())
        current = set()
        for name, reason in skipped.items():
            content = listing[name]
            current.add((name, reason, hash(content) if isinstance(content, bytes) else 0))
        for name, reason, _ in sorted(current - self._warned):
            extra = {"file": str(folder.path / name), "reason": reason}
            _log.warning("skipped: no valid network configuration", extra=extra)
        self._warned = current
