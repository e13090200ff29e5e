"""The grader against plain string search, and which prompts training may hold."""

from collections import Counter
from itertools import combinations, islice
from math import comb, factorial

import numpy as np
import pytest

from unseen.engine.batches import Columns, once
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.measures.rule_diversity import RuleDiversity, rule_diversity
from unseen.measures.skill_mix_score import skill_mix_score
from unseen.tasks.rewriting import Rewriting
from unseen.tasks.skill_mix import (
    HELD_OUT_TOPICS,
    SKILLS,
    TOPICS,
    VOCABULARY,
    Prompt,
    SkillMix,
    compose,
    example,
    grade,
    longest,
    motif,
    prompts_of,
)

RNG = np.random.default_rng(0)


def draw_prompt(k):
    return Prompt(tuple(RNG.permutation(SKILLS)[:k].tolist()), int(RNG.integers(TOPICS)))


def grade_by_search(prompt, text):
    """The same points from the words of the definition."""
    line = f" {' '.join(text)} "
    found = {s: f" {' '.join(motif(s, prompt.topic))} " in line for s in range(SKILLS)}
    return {
        **{f"s{s}": found[s] for s in prompt.skills},
        "topic": all(f" t{t} " not in line for t in range(TOPICS) if t != prompt.topic),
        "length": len(text) < 4 * len(prompt.skills),
        "clean": not any(found[s] for s in found if s not in prompt.skills),
    }


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_a_composed_text_has_full_marks_and_any_text_the_marks_of_a_search(k):
    signs = [s for s in VOCABULARY.tokens if s[0] in "tfc" and s != "topic"]
    for _ in range(200):
        prompt = draw_prompt(k)
        text = compose(prompt, RNG)
        assert all(grade(prompt, text).values())
        broken = list(text)
        broken[RNG.integers(len(text))] = signs[RNG.integers(len(signs))]
        for other in (text, broken):
            assert grade(prompt, other) == grade_by_search(prompt, other)


def test_a_lost_sign_costs_that_skill():
    for _ in range(200):
        prompt = draw_prompt(3)
        text = list(compose(prompt, RNG))
        skill = prompt.skills[0]
        wanted = motif(skill, prompt.topic)
        places = [k for k in range(len(text) - 2) if tuple(text[k : k + 3]) == wanted]
        if len(places) != 1:
            continue
        alone = all(
            tuple(text[k : k + 3]) not in {motif(s, prompt.topic) for s in prompt.skills[1:]}
            for k in range(max(0, places[0] - 2), places[0] + 3)
        )
        text[places[0] + 1] = "?"
        points = grade(prompt, text)
        assert not points[f"s{skill}"]
        if alone:
            assert all(points[f"s{s}"] for s in prompt.skills[1:])


def test_a_motif_that_nobody_asked_for_is_not_clean_and_soon_too_long():
    longer = Counter()
    for _ in range(300):
        prompt = draw_prompt(int(RNG.integers(1, 6)))
        other = next(s for s in RNG.permutation(SKILLS).tolist() if s not in prompt.skills)
        text = [*compose(prompt, RNG), *motif(other, prompt.topic)]
        points = grade(prompt, text)
        assert not points["clean"]
        assert points["length"] == (len(text) <= longest(len(prompt.skills)))
        longer[len(prompt.skills)] += not points["length"]
        if len(prompt.skills) <= 3:  # three signs more never fit
            assert not points["length"]
    assert longer


def test_the_order_of_motifs_and_of_skills_does_not_matter():
    for _ in range(100):
        prompt = draw_prompt(3)
        text = compose(prompt, RNG)
        turned = Prompt(prompt.skills[::-1], prompt.topic)
        assert grade(turned, text) == grade(prompt, text)
        orders = {compose(prompt, RNG) for _ in range(30)}
        assert len(orders) > 3


@pytest.fixture(scope="module")
def built():
    spec = SkillMix(n_train=1_500, n_test=60)
    return spec, spec.build(Lab(1)), spec.parts(Lab(1))


def test_sets_are_split_and_counted(built):
    _, _, parts = built
    assert len(parts.skills) == 12
    assert {s % 4 for s in parts.held_out} == {s // 4 for s in parts.held_out} == {0, 1, 2, 3}
    for k, n in {2: 66, 3: 220, 4: 495, 5: 792}.items():
        assert len(parts.subsets[k]) + len(parts.unseen[k]) == n == comb(12, k)
        assert not set(parts.subsets[k]) & set(parts.unseen[k])
        assert len(parts.subsets[k]) == (round(0.8 * n) if k <= 3 else 0)


def test_training_never_shows_what_evaluation_asks(built):
    _, task, parts = built
    stream = once(task.splits["train"].data, 64, Lab())
    train = [p for batch in islice(stream, 60) for p in read(batch)]
    sets = Counter(len(p.skills) for p in train)
    shown = {(frozenset(p.skills), p.topic) for p in train if len(p.skills) > 1}
    assert sets[3] > sets[2] > 0
    for skills, topic in shown:
        assert tuple(sorted(skills)) in parts.subsets[len(skills)]
        assert topic not in HELD_OUT_TOPICS
    singles = {(p.skills[0], p.topic) for p in train if len(p.skills) == 1}
    assert len(singles) == SKILLS * TOPICS  # replayed
    for name, split in task.splits.items():
        if name == "train" or "training sets" in name or "everything" in name:
            continue
        asked = prompts_of(split.data)
        assert not {(frozenset(p.skills), p.topic) for p in asked} & shown
        assert (set().union(*(p.skills for p in asked)) <= set(parts.held_out)) == (
            "held-out skills" in name
        )
        assert all((p.topic in HELD_OUT_TOPICS) == ("held-out" in name) for p in asked)
    held_out = [name for name in task.splits if "held-out skills" in name]
    sizes = {name: len(task.splits[name].data) for name in held_out}
    assert list(sizes.values()) == [12, 8, 2]


def read(batch):
    return prompts_of(Columns(tokens=batch["tokens"]))


def test_every_target_has_full_marks(built):
    _, task, _ = built
    for split in task.splits.values():
        if split.use != "train":
            for prompt, row in zip(
                prompts_of(split.data), split.data.columns["tokens"], strict=True
            ):
                words = VOCABULARY.decode(row.tolist())
                text = words[words.index("<to>") + 1 : words.index("<end>")]
                assert all(grade(prompt, text).values())


def test_the_base_shows_single_skills_of_everything():
    task = SkillMix(most=0, n_train=800, n_test=20).build(Lab(2))
    train = [
        p for batch in islice(once(task.splits["train"].data, 64, Lab()), 20) for p in read(batch)
    ]
    assert {len(p.skills) for p in train} == {1}
    assert {p.skills[0] for p in train} == set(range(SKILLS))
    assert {p.topic for p in train} == set(range(TOPICS))


def test_scores_on_six_texts_by_hand():
    """Full marks 2/6; all skills 3/6; of the five texts with the other points 1, 1, 1/2, 2/3, 0."""
    prompts = [{"skills": ["a", "b"]}] * 4 + [{"skills": ["a", "b", "c"]}, {"skills": ["a", "b"]}]
    given = ["ab+", "ab+", "ab", "a+", "ab+", "+"]

    def grader(prompt, text):
        return {**{s: s in text for s in prompt["skills"]}, "topic": "+" in text}

    scores = skill_mix_score(given, prompts, grader)
    assert scores.full_marks.value == pytest.approx(2 / 6)
    assert scores.all_skills.value == pytest.approx(3 / 6)
    assert scores.skill_fraction.value == pytest.approx((1 + 1 + 0.5 + 2 / 3 + 0) / 5)
    turned = skill_mix_score(given[::-1], prompts[::-1], grader)
    assert turned.full_marks.value == scores.full_marks.value
    assert turned.skill_fraction.value == pytest.approx(scores.skill_fraction.value)


def test_graders_and_prompts_that_do_not_fit_are_refused():
    with pytest.raises(InvalidData, match="says nothing about `b` of prompt 0"):
        skill_mix_score(["x"], [{"skills": ["a", "b"]}], lambda prompt, text: {"a": True})
    with pytest.raises(InvalidData, match="each of them once"):
        skill_mix_score(["x"], [{"skills": ["a", "a"]}], lambda prompt, text: {"a": True})
    with pytest.raises(InvalidData, match="equal length"):
        skill_mix_score(["x", "y"], [{"skills": ["a"]}], lambda prompt, text: {"a": True})
    for point in ("no", float("nan"), 0.5):
        with pytest.raises(InvalidData, match="`a` of text 0 is"):
            skill_mix_score(["x"], [{"skills": ["a"]}], lambda prompt, text, p=point: {"a": p})
    with pytest.raises(InvalidConfig, match="name every skill once"):
        Prompt((3, 3), 0)
    with pytest.raises(InvalidConfig, match="12 training skills"):
        SkillMix(asked=13)
    with pytest.raises(InvalidConfig, match="most ≤ 3"):
        SkillMix(most=4)
    with pytest.raises(InvalidData, match="no instructions"):
        rule_diversity([])


def test_diversity_is_that_of_equally_frequent_rules_and_ignores_their_names():
    assert rule_diversity("aabb").effective == pytest.approx(2)
    assert rule_diversity("aaab").entropy == pytest.approx(0.8112781)
    assert rule_diversity("aaab") == rule_diversity("zzzq")
    found = rule_diversity(["aabb>ccdd", "abab>cdcd", "aabb>ccdd"], family=lambda rule: rule[:2])
    assert (found.rules, found.families, found.examples) == (2, 2, 3)
    task = Rewriting(alphabet=5, rules=16, n_train=4_000, n_test=20, n_unseen=20).build(Lab())
    assert RuleDiversity()(task, Lab()).value == pytest.approx(16, rel=0.02)
    skewed = Rewriting(alphabet=5, rules=16, n_train=4_000, n_test=20, n_unseen=20, exponent=2.0)
    assert RuleDiversity()(skewed.build(Lab()), Lab()).value < 6


def test_orders_of_three_motifs_are_all_drawn():
    prompt = Prompt((0, 5, 10), 0)
    texts = [compose(prompt, RNG) for _ in range(400)]
    firsts = Counter(next(s for s in prompt.skills if text[:3] == motif(s, 0)) for text in texts)
    assert len(firsts) == 3
    assert len(list(combinations(prompt.skills, 2))) * 2 == factorial(3)
    assert example().build(Lab()).name == "skill mix"
