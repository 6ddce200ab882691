"""Rules through iptables-restore, v4 and v6 in parallel; save, restore, save: three rounds of processes."""

from __future__ import annotations

import os
import re
import subprocess
from functools import partial
from typing import TYPE_CHECKING

from plugin import iptables, userns
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
SECONDS = 10.0  # for each command

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
            family: _start([f"{FOLDER}/{COMMANDS[family]}-{self._variant}-{action}", *options], owner)
            for family in texts
        }
        ended = {family: _finish(process, texts[family]) for family, process in running.items()}
        for family, process in running.items():
            if process.returncode:
                raise RefusedError(_explained(str(process.args[0]), ended[family][1], texts[family]))  # type: ignore[index]
        return {family: output for family, (output, _) in ended.items()}


def _families(rules: Ruleset) -> list[Family]:
    return list(dict.fromkeys(table.family for table in rules.tables))


def _start(command: list[str], owner: int | None) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    prepare = None if owner is None else partial(_enter, owner)
    try:
        return subprocess.Popen(
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            cwd="/",
            env=ENVIRONMENT,
            preexec_fn=prepare,  # noqa: PLW1509 - it only calls the kernel (`plugin.userns.enter`)
        )
    except FileNotFoundError as error:
        raise RefusedError(f"{command[0]} does not exist; install iptables in the image") from error
    except OSError as error:
        raise RefusedError(f"{command[0]} cannot be run: {error.strerror}") from error


def _enter(owner: int) -> None:
    """Enter the pod's user namespace in the child, before it runs the command; on failure exit with the reason on stderr."""
    try:
        userns.enter(owner)
    except OSError as error:
        os.write(2, f"{error.strerror}; owner matches are taken from there alone".encode())
        os._exit(1)


def _finish(process: subprocess.Popen[str], text: str) -> tuple[str, str]:
    try:
        return process.communicate(text, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()


def _explained(command: str, said: str, text: str) -> str:
    message = " ".join(said.split()) or "ended without output"
    found = _LINE.search(message)
    return f"{command}: {message}" + (f"\n{excerpt(text, int(found[1]))}" if found else "")
