"""Ages, times, rights, columns."""

from __future__ import annotations

from datetime import timedelta

import pytest

from installer.kube.times import parse_rfc3339
from installer.status.grants import grant_commands
from installer.status.model import Cause, Unavailable
from installer.terminal.ages import age
from installer.terminal.tables import Cell, Colour, Column, Style, table
from tests.status.objects import NOW

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(
    ("since", "said"),
    [  # the cases of k8s.io/apimachinery/pkg/util/duration, HumanDuration
        ({"seconds": -5}, "0s"),
        ({"seconds": 1}, "1s"),
        ({"seconds": 119}, "119s"),
        ({"minutes": 2}, "2m"),
        ({"minutes": 5, "seconds": 3}, "5m3s"),
        ({"minutes": 10, "seconds": 59}, "10m"),
        ({"minutes": 179}, "179m"),
        ({"hours": 3}, "3h"),
        ({"hours": 3, "minutes": 7}, "3h7m"),
        ({"hours": 8, "minutes": 7}, "8h"),
        ({"hours": 47}, "47h"),
        ({"hours": 48}, "2d"),
        ({"hours": 49}, "2d1h"),
        ({"days": 8, "hours": 5}, "8d"),
        ({"days": 729}, "729d"),
        ({"days": 730}, "2y"),
        ({"days": 740}, "2y10d"),
        ({"days": 3000}, "8y"),
    ],
)
def test_an_age_is_written_as_kubectl_does(since: dict[str, int], said: str) -> None:
    assert age(NOW - timedelta(**since), NOW) == said


@pytest.mark.parametrize("text", [None, "", "yesterday", 5])
def test_invalid_time_is_none(text: object) -> None:
    assert parse_rfc3339(text) is None


def test_times_of_the_api_are_read_with_and_without_fractions() -> None:
    assert parse_rfc3339("2026-05-01T12:00:00Z") == NOW
    assert parse_rfc3339("2026-05-01T12:00:00.000000Z") == NOW


def test_an_admin_is_asked_for_a_service_account_or_a_user_by_name() -> None:
    said = 'nodes is forbidden: User "{}" cannot list resource "nodes"'
    account = Unavailable("nodes", Cause.FORBIDDEN, said.format("system:serviceaccount:ops:viewer"))
    assert grant_commands([account]).endswith("--clusterrole=istio-cni-status --serviceaccount=ops:viewer")
    assert grant_commands([Unavailable("nodes", Cause.FORBIDDEN, said.format("o'hara"))]).endswith(
        """--user='o'"'"'hara'"""
    )
    assert grant_commands([Unavailable("nodes", Cause.FORBIDDEN, "no")]).endswith("--user=NAME")


COLUMNS = (Column("NODE"), Column("FIRST TO GO", 2), Column("NEXT", 1), Column("LAST"))
ROWS = [[Cell("a-long-name.example"), Cell("x"), Cell("y" * 9, Colour.RED), Cell("")]]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (
            None,
            [
                "NODE                  FIRST TO GO   NEXT        LAST",
                "a-long-name.example   x             yyyyyyyyy   -",
            ],
        ),
        (
            52,
            [
                "NODE                  FIRST TO GO   NEXT        LAST",
                "a-long-name.example   x             yyyyyyyyy   -",
            ],
        ),
        (51, ["NODE                  NEXT        LAST", "a-long-name.example   yyyyyyyyy   -"]),
        (30, ["NODE                  LAST", "a-long-name.example   -"]),
        (20, ["NODE            LAST", "a-long-nam...   -"]),
    ],
)
def test_columns_are_left_out_then_the_first_is_cut(width: int | None, lines: list[str]) -> None:
    assert table(COLUMNS, ROWS, Style(width)) == lines


def test_colours_take_no_room() -> None:
    _, plain = table(COLUMNS, ROWS, Style(None))
    _, coloured = table(COLUMNS, ROWS, Style(None, colours=True))
    assert coloured.replace("\x1b[1;31m", "").replace("\x1b[0m", "") == plain
    assert "\x1b[1;31myyyyyyyyy\x1b[0m   " in coloured


def test_wide_characters_take_two_columns_and_combining_marks_none() -> None:
    wide, marked = "節点" * 8, "e\u0301" * 8
    assert Style(20).wrapped("節点 節点 節点 節点 節点", "- ", "  ") == ["- 節点 節点 節点", "  節点 節点"]
    assert Style(20).wrapped(f"{marked} {marked}") == [f"{marked} {marked}"]
    rows = [[Cell("節点"), Cell("a")], [Cell(marked), Cell("b")]]
    assert table((Column("NODE"), Column("LAST")), rows, Style(80)) == [
        "NODE       LAST",
        "節点       a",
        f"{marked}   b",
    ]
    assert table((Column("NODE"), Column("LAST")), [[Cell(wide), Cell("a")]], Style(20)) == [
        "NODE            LAST",
        "節点節点節...   a",
    ]


def test_terminal_control_sequences_are_escaped() -> None:
    (_, row), wrapped = table((Column("A"),), [[Cell("x\x1b[2Jy")]], Style(80)), Style(80).wrapped("m\x07\u202en\nl")
    assert row == r"x\x1b[2Jy"
    assert wrapped == [r"m\x07\u202en l"]
