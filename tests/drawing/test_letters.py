"""Class names of any language can be read in pictures: never an empty box."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from vitral.drawing import letters
from vitral.drawing.letters import NOWHERE, wide, write

BLACK = (0, 0, 0)


def drawn(text, anchor="la", at=(4, 4)):
    """Black text of 20 pixels on white, [40, 600]."""
    picture = Image.new("RGB", (600, 40), "white")
    write(ImageDraw.Draw(picture), at, text, BLACK, 20, anchor)
    return np.asarray(picture.convert("L"))


@pytest.mark.parametrize(
    "text", ["Löwenzahn", "Ångström 3 × 4", "źdźbło, őzike", "κουκουβάγια", "Ёжик і їжак", "a – b → c ≤ ±1 %…"]
)
def test_latin_greek_and_cyrillic_have_their_own_letters_everywhere(text, monkeypatch):
    monkeypatch.setattr(letters, "_fonts_with", lambda character: pytest.fail(f"{character!r} is not in our own font"))
    letters._lettering.cache_clear()
    assert drawn(text).min() < 64
    words, font = letters._lettering(text, 20)
    assert words == text
    assert all(letters._has(font, character) for character in words)
    assert not letters._has(font, NOWHERE)


def test_a_letter_and_its_dots_are_one_letter():
    assert (drawn("Lo\u0308wenzahn") == drawn("Löwenzahn")).all()
    assert wide("Lo\u0308wenzahn", 20) == wide("Löwenzahn", 20)


def test_what_no_font_has_is_written_as_its_number(monkeypatch):
    monkeypatch.setattr(letters, "_fonts_with", lambda character: iter([("no-such-font.ttf", 0)]))
    letters._lettering.cache_clear()
    assert (drawn("猫 cat") == drawn("[U+732B] cat")).all()
    assert wide("猫 cat", 20) == wide("[U+732B] cat", 20)
    letters._lettering.cache_clear()  # of what this computer seemed to lack


@pytest.mark.parametrize("text", ["猫", "Կատու", "แมว", "قطة"])
def test_other_letters_have_a_font_of_the_computer_or_their_numbers(text):
    words, font = letters._lettering(text, 20)
    assert words == text or words.startswith("[U+")
    assert all(letters._has(font, character) for character in words)


def test_a_line_lies_where_it_should():
    ink = drawn("Löwenzahn", "ra", (300, 4))
    columns = np.flatnonzero((ink < 128).any(axis=0))
    assert columns[-1] <= 300
    assert columns[0] >= 300 - wide("Löwenzahn", 20) - 2
