"""The study of explanations by hardness: published figures, proxies against their definition,
controls that gate its verdicts.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from unseen.engine.choice_likelihood import Precision, choice_likelihoods
from unseen.lab import Lab
from unseen.studies.hard_explanations import (
    GPT3,
    HUMAN,
    Part,
    find_neighbours,
    gains,
    load_scorer,
    study,
)
from unseen.studies.hard_explanations.proxies import (
    grammaticality,
    nearest,
    option_margin,
    overlap,
    prompt_for_rule,
    rest_margin,
    words,
)
from unseen.study import Scale, Verdict, pick
from unseen.study.grid import Cell
from unseen.tasks.graded_questions.winogrande import Level, explained_sentences, generated_rules

pytest.importorskip("transformers")
SMOKE = study.scales[Scale.SMOKE]
EXACT = Precision.FLOAT32


@pytest.fixture(scope="module")
def model():
    return load_scorer(SMOKE.scorer)


def overlaps(level):
    sentences = explained_sentences(level)
    human = [overlap(one.rule, one.sentence) for one in sentences]
    rules = zip(generated_rules(level), sentences, strict=True)
    return np.array(human), np.array([overlap(rule, one.sentence) for rule, one in rules])


def test_overlaps_are_those_of_the_data_and_lower_for_people():
    published = {Level.EASY: (0.48, 0.58), Level.MEDIUM: (0.35, 0.63), Level.HARD: (0.39, 0.53)}
    for level, wanted in published.items():
        human, model = overlaps(level)
        assert (human.mean(), model.mean()) == pytest.approx(wanted, abs=0.03)
        assert human.mean() < model.mean()
        if level is not Level.EASY:
            flips = np.random.default_rng(0).choice([-1, 1], (2_000, 100))
            chance = (flips * (human - model)).mean(1)
            assert (np.abs(chance) >= abs((human - model).mean())).mean() < 0.01


def test_overlap_counts_content_words_only():
    assert overlap("If X is stable, then use the rack", "The rack was red") == 1 / 3
    assert overlap("If X then Y", "anything") == 0
    assert words("Don't X!") == ["don't", "x"]


def test_margins_are_differences_of_likelihoods(model):
    sentences = explained_sentences(Level.EASY)[:3]
    found = option_margin(model, sentences, ["A rule."] * 3, EXACT)
    for one, margin in zip(sentences, found, strict=True):
        prompt = f"A rule.\n{one.sentence}\nThe blank stands for"
        texts = [f" {one.options[k]}" for k in (one.answer, 1 - one.answer)]
        (alone,) = choice_likelihoods(model, [prompt], [texts])
        assert margin == pytest.approx(float(alone.total[0] - alone.total[1]), abs=1e-4)
    for one, margin in zip(sentences, rest_margin(model, sentences, EXACT), strict=True):
        before, behind = one.parts
        likely = [
            choice_likelihoods(model, [before + one.options[k]], [[behind]])[0].total[0]
            for k in (one.answer, 1 - one.answer)
        ]
        assert margin == pytest.approx(float(likely[0] - likely[1]), abs=1e-4)


def test_an_empty_rule_supports_nothing(model):
    sentences = explained_sentences(Level.EASY)[:2]
    plain = option_margin(model, sentences, ["", ""], EXACT)
    found = gains(model, sentences, ["", "The answer."], plain, EXACT)
    assert found[0] == 0
    assert found[1] != 0


def test_grammaticality_is_zero_where_order_says_nothing(model):
    found = grammaticality(model, ["a a a", "one two three four"], 3, EXACT, Lab())
    assert found[0] == pytest.approx(0, abs=1e-5)
    assert found[1] != 0


def test_neighbours_are_those_of_an_exhaustive_search_without_itself():
    vectors = torch.randn(9, 4, generator=Lab().generator())
    cosine = torch.nn.functional.normalize(vectors) @ torch.nn.functional.normalize(
        vectors[2], dim=0
    )
    order = cosine.argsort(descending=True).tolist()
    assert nearest(vectors, vectors[2], 3) == order[:3]
    assert nearest(vectors, vectors[2], 3, [2]) == [k for k in order if k != 2][:3]
    pool = explained_sentences(Level.EASY, "pool_400")[:20]
    for row, one in zip(find_neighbours(pool, pool[:3], SMOKE), pool, strict=False):
        assert one not in [pool[k] for k in row]


def test_the_prompt_ends_with_the_item_behind_its_most_similar_neighbour():
    far, near, asked = explained_sentences(Level.EASY)[:3]
    prompt = prompt_for_rule([far, near], asked)
    places = [prompt.index(one.sentence) for one in (far, near, asked)]
    assert places == sorted(places)
    assert prompt.endswith("Why?")
    assert asked.rule not in prompt


def made_rows(own=1.0, named=95):
    rows = []
    for rank, level in enumerate(Level):
        for k in range(100):
            noise = (k % 7 - 3) / 10
            rows.append({"part": "margin", "level": level, "rank": rank, "item": k, "seed": 0,
                         "margin": 1.0 - rank + noise, "right": 1})  # fmt: skip
            rows.append({"part": "control", "level": level, "item": k, "seed": 0, "n": 1,
                         "passes": int(k < named), "support": own + noise, "other": noise / 2,
                         "named": 2.0, "filled": 1.0 + noise})  # fmt: skip
            for source in (HUMAN, GPT3):
                shift = 0.5 if source == HUMAN else 0.0
                facts = {"level": level, "source": source, "item": k, "seed": 0}
                rows.append(
                    {"part": "overlap", **facts, "overlap": 0.5 - shift / 5 + noise / 10 * shift}
                )
                rows.append({"part": "rule", **facts, "grammar": 3.0 + noise * shift / 10,
                             "support": shift + noise * shift, "masked": shift,
                             "general": shift + noise * shift})  # fmt: skip
    return rows


def test_claims_are_judged_by_items_and_gated_by_the_controls():
    assert {c.judge(made_rows(), Scale.SMOKE).verdict for c in study.claims} == {Verdict.NOT_JUDGED}
    verdicts = [claim.judge(made_rows(), Scale.LAPTOP) for claim in study.claims]
    assert [one.verdict for one in verdicts] == [Verdict.SUPPORTED] * 8
    for rows in (made_rows(own=0.0), made_rows(named=50)):
        gated = [claim.judge(rows, Scale.LAPTOP) for claim in study.claims][-3:]
        assert {one.verdict for one in gated} == {Verdict.UNDECIDED}
        assert "not measurable with this model" in gated[0].because
    for figure in study.figures:
        assert figure(made_rows()).title
    assert study.table(made_rows())


def test_a_cell_scores_every_item_drawn_once_per_writer():
    rows = list(study.run(Cell(SMOKE, Part.HARD, 0), Lab(seed=2)))
    assert len(pick(rows, part="overlap", source=HUMAN)) == 100
    drawn = [[row["item"] for row in pick(rows, part="rule", source=s)] for s in (HUMAN, GPT3)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == SMOKE.items
    assert len([row for row in pick(rows, part="rule") if "general" in row]) == 2 * SMOKE.general
    assert {row["n"] for row in pick(rows, part="control")} == {1}


def test_own_rules_come_from_both_pools():
    rows = list(study.run(Cell(replace(SMOKE, own=1), Part.OWN, 0), Lab(seed=2)))
    assert [row["pool"] for row in rows] == ["easy", "hard"]
    assert rows[0]["item"] == rows[1]["item"]
