"""A ruleset as the kernel's own messages: libnftables compiles it once, each netns gets, and must hold, the same bytes (D12).

What the kernel lists of its tables, chains and rules is what it takes to make them. Attributes that it adds by itself are left
out; everything else goes back as it came, so that there is no second encoder of rules that could differ from the first.
"""

from __future__ import annotations

import errno
import logging
import threading
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary, WeakSet

from plugin import netns, nfnetlink, nft
from plugin.backend import RefusedError
from plugin.libnftables import Context
from plugin.netlink import Message
from plugin.nfnetlink import (
    DELTABLE,
    GENERIC_HEADER,
    GETCHAIN,
    GETRULE,
    GETTABLE,
    NEWCHAIN,
    NEWRULE,
    NEWTABLE,
    NFPROTO,
    NFTA_RULE_TABLE,
    NFTA_TABLE_NAME,
    Nfnetlink,
    attributes,
    string,
    text,
)
from plugin.ruleset import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from plugin.ruleset import Ruleset

Names: TypeAlias = frozenset[tuple[int, str]]

MOST = 4096  # tables, chains or rules of one list that are read

# Attributes that the kernel adds (linux/netfilter/nf_tables.h): where each stands, which differs between netns, and how much
# a table or chain has, by which a chain or a set that somebody has put into it is seen.
_PLACE: Mapping[int, frozenset[int]] = {
    NEWTABLE: frozenset({4, 5}),  # handle, padding
    NEWCHAIN: frozenset({2, 8, 9}),  # handle, counters, padding
    NEWRULE: frozenset({3, 6, 8}),  # handle, position, padding
}
_USE: Mapping[int, frozenset[int]] = {NEWTABLE: frozenset({3}), NEWCHAIN: frozenset({6}), NEWRULE: frozenset()}

# Each for as long as its ruleset is kept; None: libnftables has to write and read it.
_templates: WeakKeyDictionary[Ruleset, Template | None] = WeakKeyDictionary()
_used: WeakSet[Ruleset] = WeakSet()  # rulesets that libnftables has written
_compiling = threading.Lock()  # held while one is compiled; nobody waits for it

_log = logging.getLogger(__name__)


class Held(NamedTuple):
    """A list of a netns that has to say this: its tables, its chains, or the rules of a table.

    It is compared as one number, as there are many bytes: `counts` has the bits set that do not tell one netns from another,
    and `sizes` is where one message ends and the next begins.
    """

    sizes: tuple[int, ...]
    counts: int
    bits: int

    @classmethod
    def of(cls, messages: Sequence[Message]) -> Held:
        """Make it of what a netns has listed."""
        told = []
        for message in messages:
            told.append(b"\xff" + bytes(GENERIC_HEADER - 1))  # the family; the rest counts changes of the netns
            for number, data in attributes(message.body):
                is_place = number in _PLACE[message.kind]
                told.append(b"\xff" * 4 + bytes(len(data) - 4) if is_place else b"\xff" * len(data))
        counts = int.from_bytes(b"".join(told), "big")
        return cls(_sizes(messages), counts, _number(messages) & counts)

    def is_said_by(self, messages: Sequence[Message]) -> bool:
        """Whether what a netns has listed says the same."""
        return _sizes(messages) == self.sizes and _number(messages) & self.counts == self.bits


class Template(NamedTuple):
    """What makes a netns hold a ruleset, and what it holds then.

    Attributes:
        first: a transaction for `Nfnetlink.commit` in a netns that holds nothing of ours; refused in any other.
        batch: one for every netns: it takes out first whatever of ours is there.
        held: what a netns lists that holds it and nothing else.
        names: of its tables, each with the number of its family.
        own: of all tables that `batch` takes out.
    """

    first: bytes
    batch: bytes
    held: tuple[Held, ...]
    names: Names
    own: Names

    def write(self, kernel: Nfnetlink) -> None:
        """Make the netns of `kernel` hold exactly this.

        Nothing is taken out where there is nothing: the kernel would end that after a grace period, for which whoever closes
        the socket waits (D4).

        Raises:
            OSError: if the kernel refuses it.
        """
        tables = _few(kernel.listed(GETTABLE))
        kernel.commit(self.batch if any(_name(each) in self.own for each in tables) else self.first)

    def is_held(self, kernel: Nfnetlink) -> bool:
        """Whether the tables of this are in the netns of `kernel`, exactly so; the first list that differs is read last.

        Raises:
            OSError: if the kernel does not say.
        """

        def of_ours(messages: Sequence[Message]) -> Sequence[Message]:
            return [each for each in messages if _name(each) in self.names]

        listed = zip(self.held, _listed(kernel, self.names), strict=True)
        return all(due.is_said_by(seen) or due.is_said_by(of_ours(seen)) for due, seen in listed)


def template_of(rules: Ruleset) -> Template | None:
    """Return the template of a ruleset, without waiting for any; None: libnftables has to write and read it."""
    return _templates.get(rules)


def learn(rules: Ruleset, refused: Template | None = None) -> None:
    """Note that libnftables has written a ruleset, and compile it the second time. For a thread that no pod waits for (F37).

    One is compiled at a time: a ruleset that comes meanwhile is compiled after a later use.

    Args:
        rules: the ruleset.
        refused: its template, if the kernel refused that. It serves other pods until it is compiled again, as the reason may
            be the netns of this pod.
    """
    if rules not in _used:
        _used.add(rules)
    elif (rules not in _templates or (refused and _templates[rules] is refused)) and _compiling.acquire(blocking=False):
        try:
            compile_now(rules)
        except (RefusedError, OSError) as error:  # tried again after the next use
            _log.warning("rules are not compiled: libnftables writes them", extra={"reason": str(error)})
        finally:
            _compiling.release()


def compile_now(rules: Ruleset) -> None:
    """Compile a ruleset, in some 30 ms, and keep its template for as long as the ruleset is kept.

    Raises:
        RefusedError: if libnftables refuses it.
        OSError: if it cannot be tried.
    """
    _templates[rules] = _compiled(rules)


def _compiled(rules: Ruleset) -> Template | None:
    """Have libnftables write the ruleset into a netns made for it, read it, and see that what was read can be written.

    Returns:
        None: the kernel lists it otherwise than it was told.
    """
    with netns.scratch() as fd, netns.entered(fd):
        context = Context()
        try:
            context.run(nft.transaction(rules))
        finally:
            context.close()
        with Nfnetlink() as kernel:
            names = frozenset((NFPROTO[each.family], nft.table_name(each.kind)) for each in rules.tables)
            listed = tuple(_listed(kernel, names))
            every = [*chain(*listed)]
            if sum(_use(each) for each in every if each.kind == NEWTABLE) != sum(
                len(each.chains) for each in rules.tables
            ):
                return None  # there is more than chains, such as a set, which is not listed with them
            own = frozenset((family, nft.table_name(kind)) for family, _ in names for kind in Kind)
            sent, removal = [*map(_sent, every)], [*_removal(own)]
            first, batch = nfnetlink.batch(sent, exclusive=True), nfnetlink.batch([*removal, *sent])
            template = Template(first, batch, tuple(map(Held.of, listed)), names, own)
            template.write(kernel)  # over what libnftables has written
            is_held = template.is_held(kernel)
            kernel.commit(nfnetlink.batch(removal))
            template.write(kernel)
            return template if is_held and template.is_held(kernel) else None


def _listed(kernel: Nfnetlink, names: Names) -> Iterator[Sequence[Message]]:
    """List all tables, then all chains, then the rules of each table of these names."""
    yield _few(kernel.listed(GETTABLE))
    yield _few(kernel.listed(GETCHAIN))
    for family, name in sorted(names):
        yield _few(kernel.listed(GETRULE, family, string(NFTA_RULE_TABLE, name)))


def _sizes(messages: Sequence[Message]) -> tuple[int, ...]:
    return tuple([len(each.body) for each in messages])


def _number(messages: Sequence[Message]) -> int:
    return int.from_bytes(b"".join([each.body for each in messages]), "big")


def _name(message: Message) -> tuple[int, str]:
    """Return the family and the name of a table, or of that of a chain or a rule."""
    return message.body[0], text(message.body, NFTA_TABLE_NAME)


def _few(messages: Iterator[Message]) -> list[Message]:
    """Read a list to its end; whoever fills a netns with more has it read by libnftables alone, as ever."""
    found = [*islice(messages, MOST + 1)]
    if len(found) > MOST:
        raise OSError(errno.E2BIG, f"listing nftables: saw more than {MOST} tables, chains or rules")
    return found


def _removal(own: Names) -> Iterator[Message]:
    """Declare all that may be ours, so that deleting it cannot fail, and delete it, as `plugin.nft.removal` does."""
    for family, name in sorted(own):
        body = bytes((family, 0, 0, 0)) + string(NFTA_TABLE_NAME, name)
        yield from (Message(NEWTABLE, body), Message(DELTABLE, body))


def _sent(listed: Message) -> Message:
    """Say to the kernel what it has listed, without what it adds."""
    added = _PLACE[listed.kind] | _USE[listed.kind]
    kept = (data for number, data in attributes(listed.body) if number not in added)
    return Message(listed.kind, listed.body[:1] + bytes(GENERIC_HEADER - 1) + b"".join(kept))


def _use(table: Message) -> int:
    """Read how many chains, sets and other objects a table has."""
    return next(int.from_bytes(data[4:8], "big") for number, data in attributes(table.body) if number in _USE[NEWTABLE])
