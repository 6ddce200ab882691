"""Which file the runtime takes, and the steps to it and back, killed between any two of them (F6, F8, F11, F13)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from installer import confdir, conflist
from installer.confdir import Delete, NameInTheWayError, Write
from tests.conflist import generated
from tests.conflist.examples import BRIDGE_CONF, CALICO, CONFS, ENTRY, FLANNEL, GKE, LISTS, OVN_CONF

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from installer.confdir import Listing, Step

BROKEN = b'{"name": "x", "plug'
OURS_ALONE = b'{"name": "x", "plugins": [{"type": "istio-cni"}]}'
UNREADABLE = OSError(errno.EIO, "Input/output error")


def after(listing: Listing, steps: Iterable[Step]) -> dict[str, bytes | OSError]:
    """Do what the steps say, and make sure that they were planned for what is there."""
    files = dict(listing)
    for step in steps:
        there = files.get(step.name)
        assert (there if isinstance(there, bytes) else None) == step.seen
        if isinstance(step, Write):
            files[step.name] = step.content
        else:
            del files[step.name]
    return files


def interrupted(listing: Listing, steps: list[Step]) -> Iterator[dict[str, bytes | OSError]]:
    """Every state that a kill -9 may leave behind."""
    return (after(listing, steps[:done]) for done in range(len(steps) + 1))


def place(listing: Listing, conf_file_name: str | None = None) -> str | None:
    """The place in the order of names of the file that the runtime takes."""
    name = confdir.choose(listing, conf_file_name).name
    for single in confdir.SINGLE:
        if name and name.endswith(single + confdir.LIST):
            return name.removesuffix(confdir.LIST)
    return name


def installed(listing: Listing, conf_file_name: str | None = None) -> dict[str, bytes | OSError]:
    return after(listing, confdir.plan(listing, ENTRY, conf_file_name))


def removed(listing: Listing) -> dict[str, bytes | OSError]:
    return after(listing, confdir.removal(listing))


DIRECTORIES: Mapping[str, Listing] = {
    "empty": {},
    "one list": {"10-calico.conflist": CALICO},
    "one conf": {"10-ovn.conf": OVN_CONF},
    "one json": {"10-ovn.json": OVN_CONF},
    "conf before a list of its name": {"10-a.conf": OVN_CONF, "10-a.conflist": GKE},
    "conf with blanks around it": {"10-a.conf": BRIDGE_CONF, "20-b.conflist": FLANNEL},
    "broken and unreadable files first": {
        "00-broken.conflist": BROKEN,
        "01-empty.conf": b"",
        "02-list.conf": CALICO,
        "03-io.conflist": UNREADABLE,
        "04-good.conflist": GKE,
        "README": b"not read",
        "10-flannel.conflist.cilium_bak": FLANNEL,
    },
    "nothing that parses": {"00-broken.conflist": BROKEN, "02-list.conf": CALICO},
    "stale entries further on": {
        "10-a.conf": OVN_CONF,
        "20-b.conflist": conflist.splice(GKE, ENTRY),
        "30-c.conf.conflist": conflist.from_conf(BRIDGE_CONF, ENTRY),
        "40-ours-alone.conflist": OURS_ALONE,
    },
    "the primary wrote its conf anew": {
        "10-a.conf": OVN_CONF,
        "10-a.conf.conflist": conflist.from_conf(BRIDGE_CONF, ENTRY),
    },
    "a broken conf beside its list": {
        "10-a.conf": BROKEN,
        "10-a.conf.conflist": conflist.from_conf(BRIDGE_CONF, ENTRY),
    },
    "a broken list where a conf's has to go": {"10-a.conf": OVN_CONF, "10-a.conf.conflist": BROKEN},
    "an entry changed and double": {
        "10-a.conflist": conflist.splice(GKE, {**ENTRY, "agentSocket": "/old"}).replace(b'"ptp"', b'"istio-cni"'),
    },
}
directories = pytest.mark.parametrize("listing", DIRECTORIES.values(), ids=DIRECTORIES)

names = st.sampled_from(
    ["05-a.conf", "05-a.conf.conflist", "05-a.conflist", "10-b.json", "10-b.json.conflist", "Z.conf", "x"]
)
contents = st.one_of(
    st.sampled_from([BROKEN, b"", UNREADABLE, *LISTS.values(), *CONFS.values()]),
    generated.lists(),
    generated.lists().map(lambda content: conflist.splice(content, {**ENTRY, "v": 1})),
    generated.confs(),
    generated.confs().map(lambda content: conflist.from_conf(content, ENTRY)),
)
any_directory = st.dictionaries(names, contents, max_size=5)
conf_file_names = st.none() | names


def check_install(listing: Listing, conf_file_name: str | None = None) -> None:
    try:
        steps = confdir.plan(listing, ENTRY, conf_file_name)
    except NameInTheWayError:
        return
    end = after(listing, steps)
    chosen = confdir.choose(end, conf_file_name).name
    for name, content in end.items():
        if name.endswith(confdir.LIST) and name not in confdir.choose(end).skipped:
            assert isinstance(content, bytes)
            if chosen:
                assert conflist.is_spliced(content, ENTRY) is (name == chosen)
                assert conflist.has_entry(content) is (name == chosen)
    assert not chosen or chosen.endswith(confdir.LIST)
    for state in interrupted(listing, steps):
        assert place(state, conf_file_name) == place(listing, conf_file_name)
        assert installed(state, conf_file_name) == end


def check_removal(listing: Listing) -> None:
    steps = confdir.removal(listing)
    end = after(listing, steps)
    for name, content in end.items():
        if name.endswith(confdir.LIST) and name not in confdir.choose(end).skipped:
            assert isinstance(content, bytes)
            assert not conflist.has_entry(content)
    for state in interrupted(listing, steps):
        assert place(state) == place(listing)
        assert removed(state) == end


@directories
def test_an_install_that_is_killed_anywhere_comes_to_the_same_end(listing: Listing) -> None:
    check_install(listing)


@given(any_directory, conf_file_names)
def test_an_install_into_any_directory_that_is_killed_anywhere_comes_to_the_same_end(
    listing: Listing, conf_file_name: str | None
) -> None:
    check_install(listing, conf_file_name)


@directories
def test_a_removal_that_is_killed_anywhere_comes_to_the_same_end(listing: Listing) -> None:
    check_removal(listing)


@given(any_directory)
def test_a_removal_from_any_directory_that_is_killed_anywhere_comes_to_the_same_end(listing: Listing) -> None:
    check_removal(listing)


@pytest.mark.parametrize(
    "listing",
    [{"10-a.conflist": content} for content in LISTS.values()] + [{"1.conf": each} for each in CONFS.values()],
)
def test_an_install_killed_anywhere_and_a_removal_killed_anywhere_give_every_byte_back(listing: Listing) -> None:
    for half_installed in interrupted(listing, confdir.plan(listing, ENTRY)):
        for half_removed in interrupted(half_installed, confdir.removal(half_installed)):
            assert removed(half_removed) == listing
            assert place(half_removed) == place(listing)
            assert removed(installed(half_removed)) == listing


@directories
def test_where_all_is_as_it_should_be_nothing_is_done(listing: Listing) -> None:
    assert confdir.plan(installed(listing), ENTRY) == []
    assert confdir.removal(removed(listing)) == []


def test_the_runtime_takes_the_first_in_byte_order_that_parses_and_each_other_has_its_reason() -> None:
    choice = confdir.choose(DIRECTORIES["broken and unreadable files first"])

    assert choice.name == "04-good.conflist"
    assert list(choice.skipped) == ["00-broken.conflist", "01-empty.conf", "02-list.conf", "03-io.conflist"]
    assert choice.skipped["01-empty.conf"] == "saw an empty file, expected a JSON object"
    assert "Input/output error" in choice.skipped["03-io.conflist"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("10-a.conf", "9-a.conf"),
        ("Z.conf", "a.conf"),
        ("a.conf", "\U0001f40d.conf"),
        ("\uff01.conf", "\U0001f40d.conf"),
        (".conf", "a.json"),
    ],
)
def test_the_order_is_that_of_bytes(first: str, second: str) -> None:
    assert confdir.choose({second: OVN_CONF, first: OVN_CONF}).name == first


@pytest.mark.parametrize(
    ("listing", "conf_file_name", "reason"),
    [
        ({}, None, "configuration files: saw none, expected the network's *.conflist, *.conf or *.json"),
        ({"x": GKE}, None, "configuration files: saw none, expected the network's *.conflist, *.conf or *.json"),
        (
            {"x.conf": b"", "y.conflist": BROKEN},
            None,
            "configuration files: saw none valid among 2, expected the network's *.conflist, *.conf or *.json",
        ),
        (
            {"x.conf": OVN_CONF},
            "y.conf",
            "saw no y.conf, expected the network's configuration by this name (cniConfFileName)",
        ),
        ({"x.conf": OVN_CONF, "y.conf": b""}, "y.conf", "y.conf: saw an empty file, expected a JSON object"),
    ],
)
def test_where_there_is_no_file_the_reason_says_what_was_seen(
    listing: Listing, conf_file_name: str | None, reason: str
) -> None:
    choice = confdir.choose(listing, conf_file_name)
    assert (choice.name, choice.reason) == (None, reason)


def test_a_configured_file_is_taken_whatever_comes_before_it_also_once_it_has_become_a_list() -> None:
    listing: Listing = {"10-a.conflist": GKE, "20-b.conf": OVN_CONF}
    spliced = installed(listing, "20-b.conf")

    assert spliced == {"10-a.conflist": GKE, "20-b.conf.conflist": conflist.from_conf(OVN_CONF, ENTRY)}
    assert confdir.choose(spliced, "20-b.conf").name == "20-b.conf.conflist"
    assert confdir.plan(spliced, ENTRY, "20-b.conf") == []


def test_while_the_configured_file_is_missing_all_others_stay_as_they_are() -> None:
    listing: Listing = {"10-a.conflist": conflist.splice(GKE, ENTRY)}
    assert confdir.plan(listing, ENTRY, "20-b.conflist") == []


def test_an_entry_in_a_file_that_is_no_longer_taken_is_removed_after_the_new_one_has_it() -> None:
    stale = conflist.splice(GKE, ENTRY)
    steps = confdir.plan({"10-new.conflist": CALICO, "20-old.conflist": stale}, ENTRY)
    assert steps == [
        Write("10-new.conflist", conflist.splice(CALICO, ENTRY), CALICO),
        Write("20-old.conflist", GKE, stale),
    ]


def test_a_single_configuration_becomes_the_list_before_it_goes_and_comes_back_before_the_list_goes() -> None:
    made = conflist.from_conf(OVN_CONF, ENTRY)
    assert confdir.plan({"10-a.conf": OVN_CONF}, ENTRY) == [
        Write("10-a.conf.conflist", made, None),
        Delete("10-a.conf", OVN_CONF),
    ]
    assert confdir.removal({"10-a.conf.conflist": made}) == [
        Write("10-a.conf", OVN_CONF, None),
        Delete("10-a.conf.conflist", made),
    ]


def test_a_configuration_that_the_primary_wrote_anew_is_kept_at_removal() -> None:
    listing: Listing = {"10-a.conf": OVN_CONF, "10-a.conf.conflist": conflist.from_conf(BRIDGE_CONF, ENTRY)}
    assert removed(listing) == {"10-a.conf": OVN_CONF}


def test_a_list_to_which_others_have_added_stays_one_at_removal() -> None:
    made = conflist.from_conf(OVN_CONF, ENTRY)
    added = conflist.remove(made).replace(b"]}\n", b', {"type": "tuning"}]}\n')
    assert removed({"10-a.conf.conflist": conflist.splice(added, ENTRY)}) == {"10-a.conf.conflist": added}


def test_a_list_of_our_entry_alone_goes_whole() -> None:
    assert confdir.removal({"10-a.conflist": OURS_ALONE}) == [Delete("10-a.conflist", OURS_ALONE)]


@pytest.mark.parametrize("other", ["10-a.conf-old.conf", "10-a.conf.bak.json", "10-a.conf.conflist"])
def test_a_name_in_the_way_of_a_conversion_is_named_and_nothing_is_done(other: str) -> None:
    content = GKE if other.endswith(confdir.LIST) else OVN_CONF
    with pytest.raises(NameInTheWayError, match=f"saw {other}, expected no other .* move it out of the directory"):
        confdir.plan({"10-a.conf": OVN_CONF, other: content}, ENTRY)
