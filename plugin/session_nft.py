"""Rules through libnftables: one transaction, read back with the same context.

Where processes of a pod run, libnftables gets a process of its own: a message from one of them makes it exit (F45), and a
call that reads what they have put there cannot be interrupted (F37).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from plugin import nft
from plugin.backend import RefusedError
from plugin.libnftables import Context
from plugin.lines import difference
from plugin.tool import Tool

if TYPE_CHECKING:
    from plugin.ruleset import Ruleset

_FOLDER = str(Path(__file__).resolve().parent.parent)
_PROGRAM = f"import sys; sys.path.insert(0, {_FOLDER!r}); from plugin.libnftables import main; main()"


class OwnProcess:
    """`plugin.libnftables.Context` with a process for each run."""

    def run(self, commands: str) -> str:
        """Run commands, as `Context` does.

        Raises:
            RefusedError: none of them had an effect, or the process did not end by itself.
        """
        ended = Tool([sys.executable, "-I", "-S", "-c", _PROGRAM], commands).finish()
        if ended.status:
            raise RefusedError(
                ended.stderr.strip() if ended.status > 0 and ended.stderr else f"libnftables: {ended.why}"
            )
        return ended.output

    def close(self) -> None:
        """Nothing is open."""


class NftSession:
    """`plugin.backend.Session` by nft."""

    def __init__(self, *, inhabited: bool = False) -> None:
        """Open it.

        Args:
            inhabited: whether processes of the pod may run in the netns.
        """
        self._context = OwnProcess() if inhabited else Context()

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
