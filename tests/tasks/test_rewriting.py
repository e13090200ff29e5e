"""String rewriting against a second interpreter that moves over the text letter by letter."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from unseen.engine.decode import greedy
from unseen.engine.evaluate import per_example
from unseen.engine.token_pairs import END
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.models.transformer import Decoder, Transformer
from unseen.tasks.rewriting import (
    MarkovAlgorithm,
    Rewriting,
    Rule,
    copy_accuracy,
    example,
    pattern,
    plant,
)

UNARY = MarkovAlgorithm((Rule("|0", "0||"), Rule("1", "0|"), Rule("0", "")))


def rewrite_by_letters(x, y, z):
    """The step of a Markov algorithm without Python's own search."""
    for start in range(len(z) - len(x) + 1):
        if all(z[start + k] == letter for k, letter in enumerate(x)):
            return z[:start] + y + z[start + len(x) :]
    return z


def run_by_letters(rules, text, steps=0):
    for rule in rules:
        found = any(text[k : k + len(rule.x)] == rule.x for k in range(len(text) + 1))
        if found:
            after = rewrite_by_letters(rule.x, rule.y, text)
            return after if rule.last else run_by_letters(rules, after, steps + 1)
    return text


def test_a_step_agrees_with_a_second_interpreter():
    rng = np.random.default_rng(0)
    idle = repeated = 0
    for _ in range(100_000 // 5):
        x, y, z = (
            "".join("abc"[k] for k in rng.integers(3, size=rng.integers(low, high)))
            for low, high in ((1, 4), (0, 4), (1, 9))
        )
        assert Rule(x, y).rewrite(z) == rewrite_by_letters(x, y, z)
        idle += x not in z
        repeated += z.count(x) > 1
    assert min(idle, repeated) > 1_000
    assert Rule("aa", "b").rewrite("aaa") == "ba"


def test_binary_becomes_unary_by_both_interpreters():
    assert UNARY.run("101") == "|||||"
    for n in range(17):
        assert UNARY.run(f"{n:b}") == run_by_letters(UNARY.rules, f"{n:b}") == "|" * n


def test_a_last_rule_ends_the_algorithm_and_one_without_end_is_refused():
    assert MarkovAlgorithm((Rule("a", "b", last=True), Rule("b", "a"))).run("aab") == "bab"
    with pytest.raises(InvalidData, match="not stopped after 50 steps"):
        MarkovAlgorithm((Rule("a", "aa"),)).run("a", max_steps=50)


def decode(spec, row):
    """Texts of a row: rule, input, answer."""
    words = ["".join(spec.vocabulary.decode([int(k)])) for k in row["tokens"]]
    text = "".join(words[: words.index("<end>")])
    prompt, answer = text.split("<to>")
    rule, z = prompt.split(":")
    return *rule.split(">"), z, answer


SPEC = Rewriting(alphabet=4, rules=30, n_train=600, n_test=80, n_unseen=40, noop=0.2)


def test_every_answer_is_the_step_and_evaluation_is_new():
    task = SPEC.build(Lab(1))
    seen = {(x, y) for x, y, _, _ in (decode(SPEC, row) for row in rows(task, "train"))}
    shown = {decode(SPEC, row)[:3] for row in rows(task, "train")}
    assert len(seen) == 30
    for name in task.splits:
        for row in rows(task, name):
            x, y, z, answer = decode(SPEC, row)
            assert answer == rewrite_by_letters(x, y, z)
            assert int(row["mask"].sum()) == len(answer) + 1
            assert int(row["length"]) == len(answer)
            if name != "train":
                assert ((x, y) in seen) == (name == "seen rules")
                assert (x, y, z) not in shown
                changed = int(row["mask"].sum()) - 1 - int(row["unchanged"].sum())
                assert changed == (len(y) if x in z else 0)


def rows(task, name):
    data = task.splits[name].data
    return [data[k] for k in range(len(data))]


def test_shares_of_inputs_without_x_and_positions_are_as_asked():
    spec = Rewriting(noop=0.3, n_train=4_000, rules=200)
    train = [decode(spec, row) for row in rows(spec.build(Lab(3)), "train")]
    assert np.mean([x not in z for x, _, z, _ in train]) == pytest.approx(0.3, abs=0.03)
    starts = Counter(plant("#", "......", at).find("#") for at in Lab(2).numpy().random(6_000))
    assert chisquare(list(starts.values())).pvalue > 0.001
    assert len(starts) == 6


def test_fewer_rules_are_the_first_of_more_and_unseen_ones_stay():
    few, some = replace(SPEC, rules=5).rules_of(Lab(4)), SPEC.rules_of(Lab(4))
    assert few == (some[0][:5], some[1])
    assert not set(some[0]) & set(some[1]["unseen rules"])


def test_a_power_law_prefers_the_first_rules():
    drawn = replace(SPEC, exponent=1.5, n_train=2_000).build(Lab(5)).splits["train"].data
    counts = Counter(drawn.columns["rule"].tolist())
    assert counts[0] > 4 * counts[5] > 0


def test_counts_of_rules_and_patterns():
    assert Rewriting().count() == 9_900
    four = Rewriting(rule_length=4, input_length=8, families=("aabb",), unseen_families=("abcd",))
    assert (four.count("aabb"), four.count("abcd")) == (90 * 89, 5_040 * 5_039)
    assert (pattern("zzqq"), pattern("qzqa")) == ("aabb", "abac")
    train, unseen = four.rules_of(Lab(6))
    assert {pattern(side) for rule in train for side in rule[:2]} == {"aabb"}
    assert {pattern(side) for rule in unseen["family abcd"] for side in rule[:2]} == {"abcd"}
    mixed = replace(four, families=("aabb", "abab", "abba")).rules_of(Lab(6))[0]
    assert len(mixed) == len(train) == 2_000
    counts = Counter(pattern(rule.x) for rule in mixed)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_renaming_letters_changes_no_answer():
    """The task knows no letter from another: rules commute with a permutation of the alphabet."""
    change = str.maketrans("abcd", "dbac")
    for row in rows(SPEC.build(Lab(7)), "unseen rules"):
        x, y, z, answer = decode(SPEC, row)
        renamed = Rule(x.translate(change), y.translate(change))
        assert renamed.rewrite(z.translate(change)) == answer.translate(change)


def test_own_rules_of_any_length_are_split_into_training_and_unseen():
    pool = (("a", "bc"), ("ab", ""), ("cab", "a"), ("b", "b"))
    spec = Rewriting(pool=pool, rules=2, n_train=60, n_test=10)
    task = spec.build(Lab(8))
    used = {name: {decode(spec, row)[:2] for row in rows(task, name)} for name in task.splits}
    assert used["train"] | used["unseen rules"] <= set(pool)
    assert not used["train"] & used["unseen rules"]
    for name in task.splits:
        for row in rows(task, name):
            x, y, z, answer = decode(spec, row)
            assert answer == rewrite_by_letters(x, y, z)
    with pytest.raises(InvalidConfig, match="each rule stands once"):
        replace(spec, pool=(*pool, pool[0]))
    with pytest.raises(InvalidConfig, match="at most 3"):
        replace(spec, rules=4)


def test_exact_match_is_greedy_decoding_and_copying_counts_copied_letters():
    spec = example()
    task = spec.build(Lab(9))
    data = task.splits["unseen rules"].data
    with Lab(9).seeded():
        model = Transformer(Decoder(vocabulary=len(spec.vocabulary), width=16, layers=1, heads=2))
    hits = per_example(model, data, task.objective.score, Lab())
    start = int(data.columns["mask"][0].int().argmax())
    written = greedy(model, data.columns["tokens"][:, :start].tolist(), 8, stop=END)
    truth = [row[start:].tolist() for row in data.columns["tokens"]]
    assert [w == t[: t.index(END)] for w, t in zip(written, truth, strict=True)] == hits.tolist()

    class Copier(torch.nn.Module):
        """Writes the letter that stands one rule and two signs before."""

        def forward(self, tokens):
            back = torch.roll(tokens, spec.input_length, 1)
            return torch.nn.functional.one_hot(back, len(spec.vocabulary)).float()

    assert per_example(Copier(), data, copy_accuracy, Lab()).min() == 1


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"rule_length": 7}, "1 to 6 letters"),
        ({"rule_length": 0}, "1 to 6 letters"),
        ({"rules": 9_000}, "at most 9,900"),
        ({"alphabet": 27}, "a to z"),
        ({"noop": 1.0}, "noop"),
        ({"families": ("bbaa",)}, "alphabetical order"),
        ({"families": ("aa",), "unseen_families": ("aa",)}, "not both"),
    ],
)
def test_bad_settings_are_refused(fields, says):
    with pytest.raises(InvalidConfig, match=says):
        Rewriting(**fields)


def test_more_new_inputs_than_exist_are_refused():
    spec = Rewriting(alphabet=2, input_length=3, rules=1, n_unseen=1, n_train=1_000, n_test=5)
    with pytest.raises(InvalidData, match="No new example"):
        spec.build(Lab())
