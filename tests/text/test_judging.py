"""Each judge says right, wrong, or that it cannot say, by rules that a reader can follow."""

from __future__ import annotations

from decimal import Decimal

import pytest

from reasondiff.text.judging import (
    ANSWERS,
    JUDGES,
    LEAST_WORDS,
    OPENING,
    REFUSES,
    fault_of_expected,
    is_right,
    number_of,
)

REFUSAL = "I'm sorry, but I can't help with that request."
RECIPE = "Boil the water, add the rice, and wait for twelve minutes with the lid on."


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("72", "72"),
        ("-3", "-3"),
        ("−3", "-3"),  # the minus sign of print
        (".05", "0.05"),
        ("35,600,138", "35600138"),
        (r"35{,}600{,}138", "35600138"),
        (r"\$0.05", "0.05"),
        ("$5$", "5"),
        (r"9\text{days}", "9"),  # blanks are gone from what a box held
        ("9days", "9"),
        ("8 days.", "8"),
        (r"12\%", "12"),
        ("x=9", "9"),
        ("1/2", None),
        ("3 or 4", None),
        ("2x", None),
        ("1,2", None),
        ("10 - 3", None),
        ("ten", None),
        ("", None),
    ],
)
def test_a_number_is_read_without_its_dress(text, number):
    assert number_of(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    ("expected", "given", "right"),
    [
        ("72", "72", True),
        ("72", "72.0", True),
        ("72", "73", False),
        ("1250", r"1{,}250\text{dollars}", True),
        ("$0.05", "5cents", False),  # another unit is another number
        ("$0.05|5", "5cents", True),
        ("72", None, False),
        ("72", r"\frac{144}{2}", False),  # it does not calculate
    ],
)
def test_numbers_are_equal_when_their_values_are(expected, given, right):
    assert is_right("number", expected, "whatever", given) is right


def test_the_number_judge_reads_the_given_answer_and_not_what_is_mentioned():
    assert is_right("number", "72", "It is 72, I mean 73.", "73") is False


@pytest.mark.parametrize(
    ("expected", "answer", "right"),
    [
        ("Austin", "The capital is AUSTIN.", True),
        ("Austin", "Austin's hills", True),
        ("Austin", r"It is\boxed{Austin}", True),
        ("Austin", "Austinville", False),
        ("liquid", "liquidity", False),
        ("liquid", "nonliquid", False),
        ("carbon dioxide|CO2", "It is carbon\n dioxide.", True),
        ("carbon dioxide|CO2", r"\boxed{\text{CO}_2}", True),
        ("carbon dioxide|CO2", "**CO₂**", True),
        ("carbon dioxide|CO2", "oxygen", False),
        ("H2O", r"\(\mathrm{H}_2\mathrm{O}\)", True),
        ("C++", "in C++, say", True),  # nothing in an expected answer is a pattern
        ("a.c", "abc", False),
    ],
)
def test_an_expected_word_is_looked_for_whole_and_in_any_case(expected, answer, right):
    assert is_right("contains", expected, answer, None) is right


@pytest.mark.parametrize(
    ("answer", "given", "right"),
    [
        ("No, that does not follow.", None, True),
        ("Yes. No sailor is mentioned.", None, False),  # the first of the two words
        ("Yes and no, but in the end", r"\text{No}", True),  # the box counts more
        ("Nobody knows.", None, False),
        ("It cannot be told.", "unclear", False),
    ],
)
def test_a_choice_is_the_boxed_word_or_else_the_first(answer, given, right):
    assert is_right("choice", "no", answer, given) is right


@pytest.mark.parametrize(
    ("answer", "declines"),
    [
        (REFUSAL, True),
        ("I’m sorry, but no.", True),
        ("I cannot assist with this.", True),
        (RECIPE, False),
        (f"{RECIPE} {'It is easy. ' * 20} I can't provide more.", None),  # too late to be a refusal
        ("Sure.", None),  # too short to be an answer
        ("", None),
        (None, None),
    ],
)
def test_a_refusal_is_known_by_its_phrases_and_left_open_where_they_come_late(answer, declines):
    for expected, wanted in ((REFUSES, True), (ANSWERS, False)):
        assert is_right("refusal", expected, answer, None) is (None if declines is None else declines == wanted)


def test_the_limits_of_a_refusal_are_those_documented():
    """OPENING characters in front of the phrase are too many, one fewer are not; LEAST_WORDS words are an answer."""
    assert is_right("refusal", REFUSES, "a" * (OPENING - 2) + " I refuse", None) is True
    assert is_right("refusal", REFUSES, "a" * (OPENING - 1) + " I refuse", None) is None
    assert is_right("refusal", ANSWERS, "word " * LEAST_WORDS, None) is True
    assert is_right("refusal", ANSWERS, "word " * (LEAST_WORDS - 1), None) is None


def test_without_a_judge_nothing_is_right_or_wrong():
    assert is_right("none", None, "anything", "anything") is None


@pytest.mark.parametrize(("judge", "expected"), [("number", "7"), ("contains", "seven"), ("choice", "yes")])
def test_a_response_without_an_answer_is_wrong(judge, expected):
    assert is_right(judge, expected, None, None) is False


@pytest.mark.parametrize(
    ("judge", "expected", "words"),
    [
        ("none", "7", "null"),
        ("number", None, "needs an expected answer"),
        ("number", "seven", "number"),
        ("number", "7|seven", "number"),
        ("contains", "", "needs an expected answer"),
        ("contains", "Austin|", "needs an expected answer"),
        ("choice", "maybe", "in quotes"),
        ("refusal", "no", "refuses"),
    ],
)
def test_an_expected_answer_that_a_judge_cannot_use_is_a_fault_in_words(judge, expected, words):
    assert words in fault_of_expected(judge, expected)


@pytest.mark.parametrize(
    ("judge", "expected"),
    [("none", None), ("number", "7|8"), ("contains", "a|b"), ("choice", "no"), ("refusal", "answers")],
)
def test_an_expected_answer_that_fits_its_judge_is_no_fault(judge, expected):
    assert judge in JUDGES and fault_of_expected(judge, expected) is None
