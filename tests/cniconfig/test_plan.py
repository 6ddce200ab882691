"""Which configuration the runtime takes, and the steps to it and back, killed between any two of them (F6, F8, F11, F13)."""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from installer.cniconfig import conflist, placement, plan
from installer.cniconfig.listing import LIST, NO_LINKS, SINGLE, is_valid
from installer.cniconfig.listing import OUT_OF_SIGHT as OUT_OF_SIGHT_ERRNO
from installer.cniconfig.placement import NameInTheWayError
from installer.cniconfig.plan import Delete, Write
from tests.cniconfig import generated
from tests.cniconfig.examples import BRIDGE_CONF, CALICO, CONFS, ENTRY, FLANNEL, GKE, LISTS, OVN_CONF

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from installer.cniconfig.listing import Links, Listing
    from installer.cniconfig.plan import Step

pytestmark = pytest.mark.pure

BROKEN = b'{"name": "x", "plug'
OURS_ALONE = b'{"name": "x", "plugins": [{"type": "istio-cni"}]}'
UNREADABLE = OSError(errno.EIO, "Input/output error")
OUT_OF_SIGHT = OSError(OUT_OF_SIGHT_ERRNO, "out of sight")


def own(content: bytes, source: str, name: str | None = None) -> bytes:
    """A list of our own; by the name that is computed if none is given."""
    return conflist.own_list(content, source, name or source[: source.rindex(".")] + placement.OWN, ENTRY)


@pytest.mark.parametrize("plugins", ["null", "{}", "3", '"a"', "[]", '["a"]', "[null]", '{"type": "x"}', '[["a"]]'])
def test_the_key_plugins_means_nothing_in_a_single_configuration(plugins: str) -> None:
    single = f'{{"type": "bridge", "name": "x", "plugins": {plugins}}}'.encode()
    listing = {"10-x.conf": single}
    (step,) = plan.plan_chained(listing, ENTRY)
    assert isinstance(step, Write)
    assert placement.choose(after(listing, [step])).name == "10-x.conf"


@pytest.mark.parametrize("suffix", [".conflist", ".conf"])
def test_a_file_at_the_edge_of_what_can_be_read_keeps_no_other_from_its_entry(suffix: str) -> None:
    limit = sys.getrecursionlimit()
    for levels in range(limit - 200, limit):
        deep = '{"a":' * levels + "{}" + "}" * levels
        plugin = f'{{"type": "y", "a": {deep}}}'
        content = plugin if suffix == ".conf" else f'{{"name": "x", "plugins": [{plugin}]}}'
        listing = {"10-calico.conflist": CALICO, f"20-deep{suffix}": content.encode()}
        assert placement.choose(listing).name == "10-calico.conflist"
        assert plan.plan_chained(listing, ENTRY)


def after(listing: Listing, steps: Iterable[Step]) -> dict[str, bytes | OSError]:
    """Do what the steps say, and make sure that they were planned for what is there."""
    files = dict(listing)
    for step in steps:
        there = files.get(step.name)
        assert (there if isinstance(there, bytes) else None) == step.expected
        if isinstance(step, Write):
            files[step.name] = step.content
        else:
            del files[step.name]
    return files


def interrupted(listing: Listing, steps: list[Step]) -> Iterator[dict[str, bytes | OSError]]:
    """Every state that a kill -9 may leave behind."""
    return (after(listing, steps[:done]) for done in range(len(steps) + 1))


def network(listing: Listing) -> str | None:
    """The configuration of others that the runtime takes, by whatever file: libcni's rule, CRI-O's patience."""
    for name in sorted(listing, key=lambda name: name.encode()):
        if name.endswith((LIST, *SINGLE)) and is_valid(listing, name):
            content = listing[name]
            assert isinstance(content, bytes)
            if not name.endswith(LIST):
                return name
            return conflist.source_of(content, name) or name
    return None


def installed(
    listing: Listing, conf_file_name: str | None = None, owned: str | None = None, links: Links = NO_LINKS
) -> dict[str, bytes | OSError]:
    return after(listing, plan.plan_chained(listing, ENTRY, conf_file_name, owned=owned, links=links))


def removed(listing: Listing) -> dict[str, bytes | OSError]:
    return after(listing, plan.removal(listing))


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
        "35-d-istio-cni.conflist": own(BRIDGE_CONF, "35-d.conf"),
        "40-ours-alone.conflist": OURS_ALONE,
    },
    "a broken list where a conf's has to go": {"10-a.conf": OVN_CONF, "10-a.conf.conflist": BROKEN},
    "a list of our own without its source": {
        "10-a-istio-cni.conflist": own(OVN_CONF, "10-a.conf"),
        "20-b.conflist": GKE,
    },
    "a list of our own before a source that does not parse": {
        "10-a-istio-cni.conflist": own(OVN_CONF, "10-a.conf"),
        "10-a.conf": BROKEN,
        "20-b.conflist": GKE,
    },
    "a list of our own that somebody has copied": {
        "05-copy.conflist": own(OVN_CONF, "10-a.conf"),
        "10-a-istio-cni.conflist": own(OVN_CONF, "10-a.conf"),
        "10-a.conf": OVN_CONF,
    },
    "several lists of our own": {
        "05-a-istio-cni.conflist": own(OVN_CONF, "10-b.json", "05-a-istio-cni.conflist"),
        "06-b-istio-cni.conflist": own(BRIDGE_CONF, "06-b.conf"),
        "10-b.json": OVN_CONF,
    },
    "an entry changed and double": {
        "10-a.conflist": conflist.splice(GKE, {**ENTRY, "agentSocket": "/old"}).replace(b'"ptp"', b'"istio-cni"'),
    },
}
directories = pytest.mark.parametrize("listing", DIRECTORIES.values(), ids=DIRECTORIES)

NAMES = [
    *("05-a.conf", "05-a.conf.conflist", "05-a.conflist", "05-a-istio-cni.conflist", "02-istio-cni.conflist"),
    *("10-b.json", "10-b.json.conflist", "!.conf", "Z.conf", "x"),
]
names = st.sampled_from(NAMES)
contents = st.one_of(
    st.sampled_from([BROKEN, b"", UNREADABLE, OUT_OF_SIGHT, *LISTS.values(), *CONFS.values()]),
    generated.lists(),
    generated.lists().map(lambda content: conflist.splice(content, {**ENTRY, "v": 1})),
    generated.confs(),
    st.tuples(generated.confs(), names.filter(lambda name: name.endswith(SINGLE))),  # for a list of our own
)


@st.composite
def directory(draw: generated.Draw) -> Listing:
    found = draw(st.dictionaries(names, contents, max_size=5))
    return {name: own(each[0], each[1], name) if isinstance(each, tuple) else each for name, each in found.items()}


any_directory = directory()
elsewhere = st.dictionaries(names, st.none(), max_size=3)
conf_file_names = st.none() | names
own_names = st.sampled_from([None, "02-istio-cni.conflist", "99-x.conflist"])


def untouched(listing: Listing) -> dict[str, bytes | OSError]:
    """What is never changed: single configurations, but for those of our plugin itself."""
    singles = {name: each for name, each in listing.items() if name.endswith(SINGLE)}
    return {k: each for k, each in singles.items() if not (isinstance(each, bytes) and conflist.is_standalone(each))}


def check_install(
    listing: Listing, conf_file_name: str | None = None, owned: str | None = None, links: Links = NO_LINKS
) -> None:
    try:
        steps = plan.plan_chained(listing, ENTRY, conf_file_name, owned=owned, links=links)
    except NameInTheWayError:
        return
    end = after(listing, steps)
    to = placement.place(end, conf_file_name, owned=owned, links=links)
    for name, content in end.items():
        if name.endswith(LIST) and name not in placement.choose(end).skipped and to and name not in links:
            assert isinstance(content, bytes)
            assert conflist.is_spliced(content, ENTRY) is (name == to.name)
            assert conflist.has_entry(content) is (name == to.name)
    if to and not conf_file_name:
        assert network(end) == to.source
    for state in interrupted(listing, steps):
        assert untouched(listing).items() <= untouched(state).items()
        assert all(state[name] == content for name, content in listing.items() if name in links and name in state)
        if to and not conf_file_name:
            assert network(state) in (network(listing), to.source)
        assert installed(state, conf_file_name, owned, links) == end


def check_removal(listing: Listing) -> None:
    steps = plan.removal(listing)
    end = after(listing, steps)
    for name, content in end.items():
        if name.endswith(LIST) and name not in placement.choose(end).skipped:
            assert isinstance(content, bytes)
            assert not conflist.has_entry(content)
    for state in interrupted(listing, steps):
        assert untouched(listing).items() <= untouched(state).items()
        assert removed(state) == end


@directories
def test_an_install_that_is_killed_anywhere_comes_to_the_same_end(listing: Listing) -> None:
    check_install(listing)


@given(any_directory, conf_file_names, own_names, elsewhere)
def test_an_install_into_any_directory_that_is_killed_anywhere_comes_to_the_same_end(
    listing: Listing, conf_file_name: str | None, owned: str | None, links: Links
) -> None:
    check_install(listing, conf_file_name, owned, links)


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
    for half_installed in interrupted(listing, plan.plan_chained(listing, ENTRY)):
        for half_removed in interrupted(half_installed, plan.removal(half_installed)):
            assert removed(half_removed) == listing
            assert network(half_removed) == network(listing)
            assert removed(installed(half_removed)) == listing


def test_own_conflist_after_an_unreadable_file_is_not_the_runtimes_choice() -> None:
    listing: Listing = {
        "05-y.conflist": OUT_OF_SIGHT,
        "10-a.conf": b"{",
        "10-a-istio-cni.conflist": own(BRIDGE_CONF, "10-a.conf"),
    }
    assert placement.place(listing) is None
    assert plan.plan_chained(listing, ENTRY) == []


@pytest.mark.parametrize(
    ("name", "source", "valid"),
    [("30-z.conflist", "10-a.conf", "20-b.conflist"), ("05-a.conflist", "05-a.conf", "05-a.conf.conflist")],
)
def test_own_conflist_that_sorts_too_late_is_replaced(name: str, source: str, valid: str) -> None:
    listing: Listing = {source: b"{", valid: CALICO, name: own(BRIDGE_CONF, source, name)}
    assert placement.place(listing) == placement.Place(valid, valid)
    check_install(listing)


def test_link_with_the_name_of_an_own_conflist_stays_a_link() -> None:
    listing: Listing = {"02-istio-cni.conflist": b"{", "05-a.conflist": CALICO}
    check_install(listing, None, "02-istio-cni.conflist", {"02-istio-cni.conflist": None})


@directories
def test_no_steps_when_the_directory_is_up_to_date(listing: Listing) -> None:
    assert plan.plan_chained(installed(listing), ENTRY) == []
    assert plan.removal(removed(listing)) == []


def test_the_runtime_takes_the_first_in_byte_order_that_parses_and_each_other_has_its_reason() -> None:
    choice = placement.choose(DIRECTORIES["broken and unreadable files first"])

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
def test_files_are_ordered_by_bytes(first: str, second: str) -> None:
    assert placement.choose({second: OVN_CONF, first: OVN_CONF}).name == first


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
def test_reason_names_what_was_seen_when_no_file_is_valid(
    listing: Listing, conf_file_name: str | None, reason: str
) -> None:
    choice = placement.choose(listing, conf_file_name)
    assert (choice.name, choice.reason) == (None, reason)


def test_configured_file_is_chosen_by_its_own_name_or_its_own_conflists_name() -> None:
    listing: Listing = {"10-a.conflist": GKE, "20-b.conf": OVN_CONF}
    made = installed(listing, "20-b.conf")

    assert made == {**listing, "20-b-istio-cni.conflist": own(OVN_CONF, "20-b.conf")}
    for name in ("20-b.conf", "20-b-istio-cni.conflist"):
        assert placement.choose(made, name).name == "20-b.conf"
        assert plan.plan_chained(made, ENTRY, name) == []


def test_configured_name_of_an_own_conflist_with_another_name_is_not_a_configuration() -> None:
    listing: Listing = {"20-b.json": OVN_CONF, "02-x.conflist": own(OVN_CONF, "20-b.json", "02-x.conflist")}
    assert placement.choose(listing, "02-x.conflist").name is None
    check_install(listing, "02-x.conflist")
    check_install({**listing, "20-b.json": BROKEN}, "02-x.conflist")


def test_other_files_stay_unchanged_while_the_configured_file_is_missing() -> None:
    listing: Listing = {"10-a.conflist": conflist.splice(GKE, ENTRY)}
    assert plan.plan_chained(listing, ENTRY, "20-b.conflist") == []


def test_entry_is_removed_from_the_former_file_after_the_new_file_has_it() -> None:
    stale = conflist.splice(GKE, ENTRY)
    steps = plan.plan_chained({"10-new.conflist": CALICO, "20-old.conflist": stale}, ENTRY)
    assert steps == [
        Write("10-new.conflist", conflist.splice(CALICO, ENTRY), CALICO),
        Write("20-old.conflist", GKE, stale),
    ]


def test_own_conflist_sorts_before_the_unchanged_conf() -> None:
    made = own(OVN_CONF, "10-a.conf")
    steps = plan.plan_chained({"10-a.conf": OVN_CONF}, ENTRY)
    assert steps == [Write("10-a-istio-cni.conflist", made, None, ("10-a.conf", OVN_CONF))]
    listing: Listing = {"10-a-istio-cni.conflist": made, "10-a.conf": OVN_CONF}
    assert plan.removal(listing) == [Delete("10-a-istio-cni.conflist", made)]
    assert removed({"10-a-istio-cni.conflist": made}) == {}


@pytest.mark.parametrize("name", ["!.conf", "00-a.conf", "~.json", ".conf", "-.conf", "a.b.conf", " .conf"])
def test_own_conflist_sorts_first_for_any_source_name(name: str) -> None:
    listing: Listing = {name: OVN_CONF, "~~.conflist": GKE}
    made = installed(listing)
    first = min((each for each in made), key=lambda each: each.encode())
    assert conflist.source_of(made[first], first) == name  # type: ignore[arg-type]
    assert removed(made) == listing


def test_own_conflist_follows_its_source_and_is_deleted_with_it_or_when_another_list_sorts_first() -> None:
    made = installed({"10-a.conf": OVN_CONF})
    assert installed({**made, "10-a.conf": BRIDGE_CONF}) == installed({"10-a.conf": BRIDGE_CONF})
    assert installed({"10-a-istio-cni.conflist": made["10-a-istio-cni.conflist"]}) == {}
    for name in ("05-b.conflist", "10-a-j.conflist", "10-a-istio-cni.conf"):
        content = GKE if name.endswith(LIST) else BRIDGE_CONF
        assert installed({**made, name: content}) == installed({"10-a.conf": OVN_CONF, name: content})
    assert installed({**made, "20-b.conflist": GKE}) == {**made, "20-b.conflist": GKE}


def test_own_conflist_stays_while_its_source_is_invalid() -> None:
    made = {**installed({"10-a.conf": OVN_CONF}), "20-b.conflist": GKE}
    for broken in (BROKEN, b"", UNREADABLE):
        assert installed({**made, "10-a.conf": broken}) == {**made, "10-a.conf": broken}


def test_copied_own_conflist_belongs_to_the_program_that_copied_it() -> None:
    copy = own(OVN_CONF, "10-a.conf")
    listing: Listing = {"01-theirs.conflist": copy, "10-a.conf": OVN_CONF}
    assert installed(listing) == listing, "it has our entry already"
    assert set(removed(listing)) == set(listing)


def test_owned_setting_makes_an_own_conflist_with_the_configured_name() -> None:
    listing: Listing = {"10-a.conflist": GKE}
    made = installed(listing, owned="02-x.conflist")
    assert made == {**listing, "02-x.conflist": own(GKE, "10-a.conflist", "02-x.conflist")}
    assert installed({**made, "10-a.conflist": CALICO}, owned="02-x.conflist") == {
        "10-a.conflist": CALICO,
        "02-x.conflist": own(CALICO, "10-a.conflist", "02-x.conflist"),
    }
    assert installed(made) == installed(listing), "no longer wanted"
    assert installed(installed(listing), owned="02-x.conflist") == made, "wanted from now on"
    assert removed(made) == listing


def test_own_conflist_is_named_after_its_source_if_the_configured_name_sorts_later() -> None:
    assert "01-a-istio-cni.conflist" in installed({"01-a.conflist": GKE}, owned="02-x.conflist")
    before: Listing = {"10-a.conflist": GKE, "20-b.conflist": CALICO}
    assert "20-b-istio-cni.conflist" in installed(before, "20-b.conflist", owned="02-x.conflist"), "nor overtake others"


def test_own_conflist_may_wait_for_its_missing_source() -> None:
    made = installed({"10-a.conflist": GKE}, owned="02-x.conflist")
    alone = {"02-x.conflist": made["02-x.conflist"]}
    for others in ({}, {"99-loopback.conf": BRIDGE_CONF}):
        assert plan.plan_chained({**alone, **others}, ENTRY, owned="02-x.conflist", waits=True) == []
        assert "10-a.conflist" not in str(placement.place({**alone, **others}, owned="02-x.conflist"))
    first: Listing = {**alone, "05-b.conflist": CALICO}
    assert installed(first, owned="02-x.conflist") == after(
        first, plan.plan_chained(first, ENTRY, owned="02-x.conflist", waits=True)
    )


def test_link_within_the_directory_has_its_target_edited() -> None:
    listing: Listing = {"10-a.conflist": GKE}
    links: Links = {"10-a.conflist": "real"}
    spliced = conflist.splice(GKE, ENTRY)
    assert plan.plan_chained(listing, ENTRY, links=links) == [Write("real", spliced, GKE)]
    assert plan.removal({"10-a.conflist": spliced}, links) == [Write("real", GKE, spliced)]
    both: Listing = {**listing, "20-b.conflist": GKE}
    links = {"10-a.conflist": "20-b.conflist"}
    assert plan.plan_chained(both, ENTRY, links=links) == [Write("20-b.conflist", spliced, GKE)]
    done = dict.fromkeys(both, spliced)
    assert plan.plan_chained(done, ENTRY, links=links) == []
    assert plan.removal(done, links) == [Write("20-b.conflist", GKE, spliced)]


@pytest.mark.parametrize("target", [None, "10-a.conf"])
def test_link_out_of_the_directory_gets_an_own_conflist_before_it(target: str | None) -> None:
    listing: Listing = {"10-a.conflist": GKE}
    made = installed(listing, links={"10-a.conflist": target})
    assert made == {**listing, "10-a-istio-cni.conflist": own(GKE, "10-a.conflist")}


def test_no_steps_when_a_file_is_unreadable_for_the_agent_only() -> None:
    listing = {**installed({"20-b.conf": OVN_CONF}), "10-a.conflist": OUT_OF_SIGHT}
    assert placement.choose(listing).name is None
    assert "10-a.conflist: saw an unreadable file (out of sight)" in placement.choose(listing).reason
    assert plan.plan_chained(listing, ENTRY) == []
    behind: Listing = {"20-b.conf": OVN_CONF, "30-c.conflist": OUT_OF_SIGHT}
    assert placement.choose(behind).name == "20-b.conf"


def multus(*plugins: bytes) -> bytes:
    delegate = b'{"name": "gke", "plugins": [' + b", ".join(plugins) + b"]}"
    return b'{"name": "multus-cni-network", "type": "multus", "delegates": [' + delegate + b"]}"


def test_entry_copied_by_multus_is_not_added_again() -> None:
    entry = b'{"agentSocket": "/x", "type": "istio-cni"}'
    spliced = installed({"10-a.conflist": GKE})
    listing: Listing = {**spliced, "00-multus.conf": multus(b'{"type": "ptp"}', entry)}
    assert plan.plan_chained(listing, ENTRY) == []
    fresh: Listing = {"10-a.conflist": GKE, "00-multus.conf": multus(b'{"type": "ptp"}')}
    made = installed(fresh)
    assert set(made) - set(fresh) == {"00-multus-istio-cni.conflist"}, (
        "Multus copies from no file that begins with 00-multus"
    )
    assert made["10-a.conflist"] == GKE
    assert removed(made) == fresh


def test_conflist_with_only_our_entry_is_deleted() -> None:
    assert plan.removal({"10-a.conflist": OURS_ALONE}) == [Delete("10-a.conflist", OURS_ALONE)]


@pytest.mark.parametrize("content", [GKE, UNREADABLE])
def test_foreign_file_with_the_own_conflists_name_is_an_error_without_steps(content: bytes | OSError) -> None:
    first = "10-a-istio-cni.conflist"
    listing: Listing = {"10-a.conf": OVN_CONF, first: content}
    if content == GKE:  # it is what the runtime takes
        assert installed(listing) == {**listing, first: conflist.splice(GKE, ENTRY)}
    with pytest.raises(NameInTheWayError, match=f"cannot create {first}, .* move them out of the directory"):
        plan.plan_chained(listing, ENTRY, "10-a.conf")


def test_broken_own_conflist_is_rewritten() -> None:
    made = installed({"10-a.conf": OVN_CONF})
    for broken in (b"", BROKEN):
        assert installed({**made, "10-a-istio-cni.conflist": broken}) == made


def test_file_renamed_by_cilium_loses_our_entry() -> None:
    """Whoever renames it back, perhaps when the plugin is no longer there, has what the network's owner wrote."""
    listing: Listing = {
        "05-cilium.conflist": CALICO,
        "10-a.conflist.cilium_bak": conflist.splice(GKE, ENTRY),
        "10-b-istio-cni.conflist.cilium_bak": own(OVN_CONF, "10-b.conf"),
        "10-b.conf.cilium_bak": OVN_CONF,
        "10-c.conflist.cilium_bak": BROKEN,
    }
    left = {**listing, "10-a.conflist.cilium_bak": GKE}
    del left["10-b-istio-cni.conflist.cilium_bak"]
    assert installed(listing) == {**left, "05-cilium.conflist": conflist.splice(CALICO, ENTRY)}
    assert removed(listing) == left


def test_network_configuration_is_not_replaced_by_a_standalone_one() -> None:
    with pytest.raises(NameInTheWayError, match="saw a network's configuration of this name; set cniConfFileName"):
        plan.plan_standalone({"10-a.conf": OVN_CONF}, ENTRY, "10-a.conf")
    for content in (conflist.standalone({**ENTRY, "agentSocket": "/old"}), BROKEN, UNREADABLE):
        steps = plan.plan_standalone({"istio-cni.conf": content}, ENTRY, "istio-cni.conf")
        assert steps[-1].name == "istio-cni.conf"
