"""Rules through iptables-restore, v4 and v6 in parallel; save, restore, save: three rounds of processes."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from plugin import iptables, userns
from plugin.backend import Backend, RefusedError
from plugin.lines import difference, excerpt
from plugin.redirect import Family
from plugin.tool import Tool

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from plugin.ruleset import Ruleset

FOLDER = "/usr/sbin"
COMMANDS: Mapping[Family, str] = {Family.V4: "iptables", Family.V6: "ip6tables"}
VARIANTS: Mapping[Backend, str] = {Backend.IPTABLES_NFT: "nft", Backend.IPTABLES_LEGACY: "legacy"}

_LINE = re.compile(r"\bline:? ([0-9]+)")


class IptablesSession:
    """`plugin.backend.Session` through iptables, legacy or nft variant."""

    def __init__(self, backend: Backend) -> None:
        self._variant = VARIANTS[backend]
        self._owner = userns.foreign_owner()
        userns.libc()

    def replace(self, rules: Ruleset) -> None:
        """Replace, as `Session` specifies. Tables are committed one by one, so a failure removes all of them."""
        saved = self._save(_families(rules))
        try:
            self._restore({family: iptables.transaction(rules, family, there) for family, there in saved.items()})
        except RefusedError:
            self.remove(rules)
            raise

    def remove(self, rules: Ruleset) -> None:
        """Remove, as `Session` specifies."""
        saved = self._save(_families(rules))
        self._restore({family: text for family, there in saved.items() if (text := iptables.removal(there))})

    def difference(self, rules: Ruleset) -> str | None:
        """Read back, as `Session` specifies."""
        for family, saved in self._save(_families(rules)).items():
            if found := difference(iptables.listing(rules, family), iptables.own_listing(saved)):
                return f"{COMMANDS[family]}: {found}"
        return None

    def close(self) -> None:
        """Close the pod's user namespace: each command has ended."""
        if self._owner is not None:
            os.close(self._owner)
            self._owner = None

    def _save(self, families: Iterable[Family]) -> dict[Family, str]:
        return self._run("save", dict.fromkeys(families, ""))

    def _restore(self, texts: Mapping[Family, str]) -> None:
        self._run("restore", texts, "--noflush")

    def _run(self, action: str, texts: Mapping[Family, str], *options: str) -> dict[Family, str]:
        """Run a command for each family at the same time, with its text on stdin.

        Returns:
            The output of each.
        """
        owner = self._owner if action == "restore" else None  # reading works from any user namespace
        running = {
            family: Tool([self._command(family, action), *options], text, owner) for family, text in texts.items()
        }
        ended = {family: tool.finish() for family, tool in running.items()}
        for family, each in ended.items():
            if each.status:
                raise RefusedError(_explain(self._command(family, action), each.why, texts[family]))
        return {family: each.output for family, each in ended.items()}

    def _command(self, family: Family, action: str) -> str:
        return f"{FOLDER}/{COMMANDS[family]}-{self._variant}-{action}"


def _families(rules: Ruleset) -> list[Family]:
    return list(dict.fromkeys(table.family for table in rules.tables))


def _explain(command: str, why: str, text: str) -> str:
    found = _LINE.search(why)
    return f"{command}: {why}" + (f"\n{excerpt(text, int(found[1]))}" if found else "")
