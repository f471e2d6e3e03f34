"""Values in texts that were read with mistakes."""

from __future__ import annotations

import pytest

from benchmarks.sign.translation import Phrase
from benchmarks.sign.translation.placeholders import find_values


@pytest.mark.parametrize(
    ("english", "text", "values"),
    [
        ("Platform {number}", "Platform 12", ("12",)),
        ("Platform {number}", "PLATF0RM l2", ("12",)),
        ("Platform {number}", "PLATFORM12", ("12",)),
        ("Platform {number}", "PLATFORM", None),
        ("Gate {code}", "GATE Bl2", ("B12",)),
        ("Gate {code}", "GATEB12", ("B12",)),
        ("Gate {code}", "Gate", None),
        ("Gate {code}", "GATE A-12.", ("A-12",)),
        ("Gate {code}", "Gate post", None),
        ("Room {code}", "Room 12A", ("12A",)),
        ("Open {time} - {time}", "0PEN 9:00-l7:3O", ("9:00", "17:30")),
        ("Open {time} - {time}", "Open 9 am - 5.30 pm", ("9 am", "5.30 pm")),
        ("Open {time} - {time}", "OPEN 9:00", None),
        ("From {price}", "FR0M £l2.5O", ("£12.50",)),
        ("Adults {price}", "Adults 12,50 €", ("12,50 €",)),
        ("{number}% off", "50%OFF", ("50",)),
        ("{day} - {day}", "MON-FRI", ("mon", "fri")),
        ("{day} closed", "5undays closed", ("sundays",)),
        ("Welcome to {name}", "WELC0ME TO BATH SPA", ("BATH SPA",)),
        ("Maximum weight {number} t", "MAXlMUM WEIGHT 7.5t", ("7.5",)),
        ("Floor {number}", "FLOOR 3.", ("3",)),
        ("Floor {number}", "2 for 1", None),
        ("Flight {code}", "FLIGHT BA 2490!", ("BA 2490",)),
        ("Open {time} - {time}", "Open 9 a.m. to 5 p.m.", ("9 a.m.", "5 p.m.")),
        ("{day} - {day}", "north - south", None),
        ("Platform {number}", "Mushroom risotto", None),
        ("Platform {number}", "", None),
    ],
)
def test_values_are_found_and_put_right(english: str, text: str, values: tuple[str, ...] | None) -> None:
    phrase = Phrase(english, english, "")
    assert find_values(phrase.literals, phrase.kinds, text) == values
