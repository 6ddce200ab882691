"""Rules by iptables-restore, v4 and v6 at the same time; save, restore, save: three rounds of processes."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from plugin import iptables
from plugin.backend import Backend, RefusedError
from plugin.lines import difference, excerpt
from plugin.redirect import Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from plugin.ruleset import Ruleset

FOLDER = "/usr/sbin"
COMMANDS: Mapping[Family, str] = {Family.V4: "iptables", Family.V6: "ip6tables"}
VARIANTS: Mapping[Backend, str] = {Backend.IPTABLES_NFT: "nft", Backend.IPTABLES_LEGACY: "legacy"}
# The legacy variant takes a lock, on the node's one file by default (F16): the netns, which is ours alone, will do.
ENVIRONMENT = {"XTABLES_LOCKFILE": "/proc/self/ns/net"}
SECONDS = 10.0  # for one command

_LINE = re.compile(r"\bline:? ([0-9]+)")


class IptablesSession:
    """`plugin.backend.Session` by iptables, legacy or nft variant."""

    def __init__(self, backend: Backend) -> None:
        self._variant = VARIANTS[backend]

    def replace(self, rules: Ruleset) -> None:
        """Replace, as `Session` says. The tables are committed one by one, so a failure takes all of them out."""
        saved = self._save(_families(rules))
        try:
            self._restore({family: iptables.transaction(rules, family, there) for family, there in saved.items()})
        except RefusedError:
            self.remove(rules)
            raise

    def remove(self, rules: Ruleset) -> None:
        """Remove, as `Session` says."""
        saved = self._save(_families(rules))
        self._restore({family: text for family, there in saved.items() if (text := iptables.removal(there))})

    def difference(self, rules: Ruleset) -> str | None:
        """Read back, as `Session` says."""
        for family, saved in self._save(_families(rules)).items():
            if found := difference(iptables.listing(rules, family), iptables.own_listing(saved)):
                return f"{COMMANDS[family]}: {found}"
        return None

    def close(self) -> None:
        """Do nothing: each command has ended."""

    def _save(self, families: Iterable[Family]) -> dict[Family, str]:
        return self._run("save", dict.fromkeys(families, ""))

    def _restore(self, texts: Mapping[Family, str]) -> None:
        self._run("restore", texts, "--noflush")

    def _run(self, action: str, texts: Mapping[Family, str], *options: str) -> dict[Family, str]:
        """Run a command for each family at the same time, with its text on stdin.

        Returns:
            What each wrote.
        """
        running = {
            family: _start([f"{FOLDER}/{COMMANDS[family]}-{self._variant}-{action}", *options]) for family in texts
        }
        ended = {family: _finish(process, texts[family]) for family, process in running.items()}
        for family, process in running.items():
            if process.returncode:
                raise RefusedError(_explained(str(process.args[0]), ended[family][1], texts[family]))  # type: ignore[index]
        return {family: output for family, (output, _) in ended.items()}


def _families(rules: Ruleset) -> list[Family]:
    return list(dict.fromkeys(table.family for table in rules.tables))


def _start(command: list[str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd="/", env=ENVIRONMENT)
    except OSError as error:
        raise RefusedError(f"{command[0]} cannot be run: {error.strerror}; install iptables in the image") from error


def _finish(process: subprocess.Popen[str], text: str) -> tuple[str, str]:
    try:
        return process.communicate(text, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()


def _explained(command: str, said: str, text: str) -> str:
    message = " ".join(said.split()) or "ended without a word"
    found = _LINE.search(message)
    return f"{command}: {message}" + (f"\n{excerpt(text, int(found[1]))}" if found else "")
