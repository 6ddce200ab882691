"""Rules through libnftables, in this process: one transaction, read back with the same context."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plugin import nft
from plugin.libnftables import Context
from plugin.lines import difference

if TYPE_CHECKING:
    from plugin.ruleset import Ruleset


class NftSession:
    """`plugin.backend.Session` by nft."""

    def __init__(self) -> None:
        self._context = Context()

    def replace(self, rules: Ruleset) -> None:
        """Replace, as `Session` specifies."""
        self._context.run(nft.transaction(rules))

    def remove(self, rules: Ruleset) -> None:
        """Remove, as `Session` specifies."""
        self._context.run(nft.removal(rules))

    def difference(self, rules: Ruleset) -> str | None:
        """Read back, as `Session` specifies."""
        listed = "".join(self._context.run(nft.list_command(each)) for each in rules.tables)
        return difference(nft.listing(rules), nft.own_listing(listed))

    def close(self) -> None:
        """Free the context, which takes 7 to 20 ms in the kernel after a change (D4)."""
        self._context.close()
