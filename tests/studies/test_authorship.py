"""The study of authorship: no source on two sides, the place of a change, claims on made rows."""

import numpy as np
import pytest
import torch

from unseen.lab import Lab
from unseen.measures.machine_text.token_statistics import TokenStatistics
from unseen.studies.authorship import CLAIMS, area, boundary_gap, narrowing, study
from unseen.studies.authorship.corpora import INVENTED, invent_novels
from unseen.studies.authorship.machines import MARGIN, boundary, one_human_each, tail
from unseen.studies.authorship.people import detector_areas, lengths, two_topics
from unseen.study import Scale
from unseen.tasks.authorship.passages import Passage


def statistics(log_probability) -> TokenStatistics:
    x = torch.as_tensor(log_probability, dtype=torch.float64)
    return TokenStatistics(x, torch.zeros_like(x), torch.ones_like(x), torch.ones(len(x)).long())


def test_the_boundary_is_the_end_of_the_last_token_of_the_first_part():
    # 41 tokens of one character, of which 40 are scored: from token 20 on they are likely
    ends = np.arange(1, 42)
    assert boundary(statistics([-5.0] * 19 + [0.0] * 21), ends) == 20
    # a rise nearer to an end than the margin is not sought
    assert boundary(statistics([-5.0] * 2 + [0.0] * 38), ends) == MARGIN + 1


def test_the_tail_begins_with_the_first_token_behind_the_prefix():
    # statistic k belongs to token k + 1: token 4 is the first one behind
    found = tail(statistics(range(10)), 4)
    assert found.log_probability[0] == 3
    assert len(tail(statistics(range(10)), 0)) == 10


def test_humans_of_a_source_are_counted_once():
    texts = [Passage("h", "human", "s"), Passage("m", "gpt", "s"), Passage("h", "human", "s")]
    assert [one.author for one in one_human_each(texts)] == ["human", "gpt"]


def test_a_detector_of_lengths_sees_lengths_alone():
    texts = [
        Passage("word " * (3 + 20 * (k % 2)), ("human", "machine")[k % 2], str(k))
        for k in range(20)
    ]
    assert detector_areas(texts[:12], texts[12:])["length"] == 1
    assert lengths([Passage("a b.", "human", "x")]).tolist()[0] == pytest.approx(
        [np.log(3), np.log(5), 1]
    )


def test_topics_are_clusters_of_content_words():
    texts = [
        Passage(
            ("ships sail harbour sea" if k % 3 else "banks lend money rates") + f" the {k}", "A", ""
        )
        for k in range(18)
    ]
    larger, smaller = two_topics(texts, Lab())
    assert {one.text.split()[0] for one in larger} == {"ships"}
    assert {one.text.split()[0] for one in smaller} == {"banks"}


def test_effects_read_items_and_pairs():
    rows = [
        {"part": "zero-shot", "file": "f", "machine": k % 2, "curvature": float(k % 2) + 0.01 * k}
        for k in range(20)
    ]
    assert area("curvature", "f")(rows).value == 1
    change = [
        {"part": "change", "kind": kind, "file": "f", "item": k, "error": error, "middle": 0.4}
        for k in range(5)
        for kind, error in (("prefix", 0.1 + 0.01 * k), ("prefix, human text", 0.3))
    ]
    assert boundary_gap("prefix")(change).value == pytest.approx(0.12 - 0.4)
    assert boundary_gap("prefix", "prefix, human text")(change).value == pytest.approx(0.12 - 0.3)
    books = [
        {"part": "books", "method": "CharNgram", "seed": s, "words": w, "at": a, "accuracy": v}
        for s in (0, 1)
        for (w, a), v in {
            ("all", "known books"): 0.9 + 0.01 * s,
            ("all", "another book"): 0.6,
            ("masked", "known books"): 0.8,
            ("masked", "another book"): 0.7,
        }.items()
    ]
    assert narrowing(books).value == pytest.approx(0.305 - 0.1)


def test_invented_texts_have_no_file_and_claims_need_the_laptop():
    assert study.scales[Scale.SMOKE].corpora is INVENTED
    assert len({one.group for one in invent_novels()}) == 6
    assert all(claim.needs is Scale.LAPTOP for claim in CLAIMS)
