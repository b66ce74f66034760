"""Are numbers put into words without saying more than they do?"""

from __future__ import annotations

import math

from reasondiff.report.wording import direction, ends, interval, listed, number, percent, points, runs, share_of


def test_a_missing_interval_says_that_there_were_too_few():
    assert interval(math.nan, math.nan) == "n < 6"


def test_missing_numbers_are_dashes():
    assert (number(math.nan), percent(math.nan), points(math.nan)) == ("–", "–", "–")


def test_numbers_keep_three_digits():
    assert (number(12), number(114053), number(0.12345), number(0.00012345)) == ("12", "114,053", "0.123", "0.000123")
    assert number(0.0000512) == "5.1e−05"


def test_a_share_of_nothing_has_no_percentage():
    assert share_of(0, 0, math.nan, math.nan) == "0 of 0"


def test_a_change_has_a_direction_only_when_the_interval_excludes_0():
    words = {"up": "more", "down": "fewer", "neither": "unclear"}
    assert direction(0.01, 0.2, **words) == "more"
    assert direction(-0.2, -0.01, **words) == "fewer"
    assert direction(-0.1, 0.1, **words) == "unclear"
    assert direction(math.nan, math.nan, **words) == "unclear"


def test_lists_read_as_sentences():
    assert (listed([]), listed(["a"]), listed(["a", "b", "c"])) == ("", "a", "a, b and c")


def test_layers_in_a_row_are_shortened():
    assert runs([3, 0, 1, 2, 7, 5, 8]) == "0 to 3, 5, 7 and 8"
    assert (runs([]), runs([4])) == ("", "4")


def test_a_range_leaves_out_what_is_missing_and_says_one_number_once():
    assert ends([0.4, math.nan, 0.1], number) == "0.1 to 0.4"
    assert (ends([40, 40], number), ends([math.nan], number)) == ("40", "–")
