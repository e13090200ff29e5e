"""Sentences about restaurants: no restaurant is on both sides."""

import pytest

from unseen.data.files import data_folders
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.tasks.restaurant_texts import (
    RestaurantTexts,
    example,
    read_restaurants,
    words_of,
)

FILE = "e2e-nlg/devel-fixed.no-ol.csv.gz"


def test_words_and_marks_in_lower_case():
    assert words_of("name[Café Rouge], priceRange[£20-25]") == (
        *("name", "[", "café", "rouge", "]", ",", "pricerange", "[", "£", "20", "-", "25", "]"),
    )


def test_a_restaurant_is_on_one_side_with_all_its_sentences():
    spec = example()
    parts = spec.split(Lab())
    assert (len(parts.train), len(parts.unseen)) == (4, 2)
    assert set(parts.train) | set(parts.unseen) == set(spec.descriptions)
    task = spec.build(Lab())
    assert len(task.splits["train"].data) == 8  # two sentences each
    assert len(task.splits["unseen"].data) == 2
    assert spec.split(Lab(1)) != parts


@pytest.mark.skipif(
    not any((folder / FILE).is_file() for folder in data_folders()),
    reason=f"{FILE} is not in UNSEEN_DATA",
)
def test_the_published_part():
    found = read_restaurants()
    assert len(found) == 1_484
    assert len({one.attributes for one in found}) == 1_484
    assert sum(len(one.texts) for one in found) == 4_133


def test_refusals():
    with pytest.raises(InvalidConfig, match="share=1"):
        RestaurantTexts(example().descriptions, share=1.0)
    with pytest.raises(InvalidData, match="1 restaurants"):
        RestaurantTexts(example().descriptions[:1])
