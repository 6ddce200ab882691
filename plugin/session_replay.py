"""Rules as precompiled messages (`plugin.template`); libnftables describes any failure or difference."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from plugin import template
from plugin.nfnetlink import Nfnetlink
from plugin.session_nft import NftSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from plugin.ruleset import Ruleset
    from plugin.template import Template


class ReplaySession:
    """`plugin.backend.Session` through nft, without libnftables unless something fails or differs."""

    def __init__(self, *, inhabited: bool = False) -> None:
        """Open it; arguments as for `NftSession`."""
        self._inhabited = inhabited
        self._kernel = Nfnetlink()
        self._libnftables: NftSession | None = None
        self._learn: Callable[[], None] | None = None

    def replace(self, rules: Ruleset) -> None:
        """Replace, as `Session` specifies."""
        compiled = template.template_of(rules)
        if compiled and self._takes(compiled):
            return
        self._in_words().replace(rules)  # or describe what was refused
        self._learn = partial(template.learn, rules, compiled)

    def remove(self, rules: Ruleset) -> None:
        """Remove, as `Session` specifies."""
        self._learn = None
        self._in_words().remove(rules)

    def difference(self, rules: Ruleset) -> str | None:
        """Read back, as `Session` specifies: equal bytes are equal rules; otherwise the nft listings are compared."""
        if (compiled := template.template_of(rules)) and self._holds(compiled):
            return None
        return self._in_words().difference(rules)

    def _takes(self, compiled: Template) -> bool:
        try:
            compiled.write(self._kernel)
        except OSError:
            return False
        return True

    def _holds(self, compiled: Template) -> bool:
        try:
            return compiled.is_held(self._kernel)
        except OSError:
            return False

    def _in_words(self) -> NftSession:
        if not self._libnftables:
            self._libnftables = NftSession(inhabited=self._inhabited)
        return self._libnftables

    def close(self) -> None:
        """Close what is open, which takes 7 to 20 ms in the kernel after a deletion (D4), and have what was new learned."""
        self._kernel.close()
        if self._libnftables:
            self._libnftables.close()
        if learn := self._learn:
            self._learn = None
            learn()
