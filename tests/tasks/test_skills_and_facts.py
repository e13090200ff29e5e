"""Targets hold the skills that they name, tests share nothing with training, and planted wrong
facts are as many as asked for.
"""

from math import sqrt

import pytest
import torch

from unseen.engine.token_pairs import PAD
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.measures.contamination import Contamination, TextSets
from unseen.task import Use
from unseen.tasks.skills_and_facts import (
    SKILLS,
    STRING_SKILLS,
    VOCABULARY,
    SkillsAndFacts,
    Target,
    World,
    compositions,
    compositions_of,
    strings,
)

FACT = SKILLS.index("fact")


def read_rows(task, split):
    """Every row as words."""
    data = task.split(split).data
    return [VOCABULARY.decode(row[row != PAD].tolist()) for row in data.columns["tokens"]]


def test_compositions_compute_what_no_single_skill_does():
    single = {tuple(map(skill, strings())) for skill in STRING_SKILLS.values()}
    found = set(compositions())
    for one in STRING_SKILLS:
        for two in STRING_SKILLS:
            outputs = tuple(STRING_SKILLS[two](STRING_SKILLS[one](text)) for text in strings())
            assert ((one, two) in found) == (outputs not in single)
    sizes = [len(compositions_of(target)) for target in (Target.NARROW, Target.MID, Target.BROAD)]
    assert sizes[0] == 1 < sizes[1] < sizes[2] == len(found)


@pytest.mark.parametrize("target", list(Target))
def test_no_13_gram_and_no_whole_row_of_the_test_is_in_any_training(target):
    spec = SkillsAndFacts(target, n=100, general=2_000, n_test=100)
    task = spec.build(Lab(1))
    trained = [read_rows(task, name) for name in task.of(Use.TRAIN)]
    trained.append(read_rows(spec.pretraining(Lab(1), 2_000), "train"))
    # signs and words as plain words, so that the measure counts every one of them
    numbers = {token: f"w{k}" for k, token in enumerate(("<to>", "<end>", *VOCABULARY.tokens))}
    test, *corpora = (
        [" ".join(numbers[token] for token in row) for row in rows]
        for rows in (read_rows(task, "test"), *trained)
    )
    for corpus in corpora:
        assert Contamination(13)(TextSets(test, corpus), Lab()).value == 0


def test_answers_are_what_the_skills_compute():
    task = SkillsAndFacts(n=200, general=0, n_test=50).build(Lab(2))
    for row in (*read_rows(task, "target"), *read_rows(task, "test")):
        colon, to = row.index(":"), row.index("<to>")
        one, two = (row[row.index("then") + step] for step in (-1, 1))
        text = "".join(row[colon + 1 : to])
        assert "".join(row[to + 1 : -1]) == STRING_SKILLS[two](STRING_SKILLS[one](text))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_as_many_facts_are_wrong_as_asked_and_of_the_right_type(share):
    spec = SkillsAndFacts(Target.FACTS, general=8_000, hallucination=share)
    lab = Lab(3)
    world = World.draw(lab.child("world"))
    rows = [row for row in read_rows(spec.build(lab), "general") if "fact" in row]
    wrong = 0
    asked = set()
    for row in rows:
        relation, entity, value = row[-6], row[-4], row[-2]
        r, e = int(relation[1:]), int(entity[1:])
        assert value.startswith(f"v{r}.")
        wrong += value != f"v{r}.{world.values[e, r]}"
        asked.add((e, r))
    assert abs(wrong / len(rows) - share) <= 0.5 / sqrt(len(rows)) * 3
    assert (wrong == 0) == (share == 0)
    assert not asked & {*world.train, *world.test}
    # nothing else differs
    other = SkillsAndFacts(Target.FACTS, general=8_000, hallucination=0.0).build(lab)
    plain = read_rows(other, "general")
    mixed = read_rows(spec.build(lab), "general")
    assert all(a == b or "fact" in a for a, b in zip(plain, mixed, strict=True))
    assert [row[:-2] for row in plain] == [row[:-2] for row in mixed]


def test_fewer_examples_are_the_first_of_more_and_general_data_change_no_target():
    few, many, mixed = (
        SkillsAndFacts(n=n, general=g, n_test=20).build(Lab(4))
        for n, g in ((50, 0), (90, 0), (50, 80))
    )
    assert read_rows(few, "target") == read_rows(many, "target")[:50]
    assert torch.equal(
        few.split("target").data.columns["tokens"], mixed.split("target").data.columns["tokens"]
    )
    assert read_rows(few, "test") == read_rows(mixed, "test")


def test_replacing_keeps_the_size():
    plain, replaced = (
        SkillsAndFacts(n=100, general=0, replace=share).build(Lab(5)) for share in (0.0, 0.2)
    )
    numbers = replaced.split("target").data.columns["skill"]
    assert len(numbers) == 100
    assert int((numbers < len(SKILLS)).sum()) == 20
    assert read_rows(plain, "target")[20:] == read_rows(replaced, "target")[20:]


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 4_001},
        {"target": Target.FACTS, "n": 101},
        {"hallucination": 1.1},
        {"hallucination": -0.1},
        {"replace": 2.0},
        {"general": -1},
        {"n_test": 0},
    ],
)
def test_impossible_requests_are_refused(wrong):
    with pytest.raises(InvalidConfig):
        SkillsAndFacts(**wrong)


def test_an_unknown_target_is_refused():
    # with types checked the annotation refuses it before
    with pytest.raises((InvalidConfig, TypeError), match="wide"):
        SkillsAndFacts(target="wide")
