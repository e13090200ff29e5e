"""Generated facts: who is stated in which order, which templates are asked; published facts: counts
and refusals.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from unseen.errors import CorruptFile, InvalidConfig, InvalidData, MissingFile
from unseen.lab import Lab
from unseen.task import Use
from unseen.tasks.published_reversal import (
    CELEBRITIES,
    FACTS,
    TEMPLATES,
    Celebrities,
    Files,
    PublishedReversal,
    celebrities,
    letters,
    toy,
)
from unseen.tasks.reversal import BOS, EOS, LENGTH, SPECIAL, Reversal, refuse_shared_facts

specs = st.builds(
    Reversal,
    facts=st.integers(3, 12),
    firsts=st.integers(7, 12),
    lasts=st.integers(7, 12),
    words=st.integers(6, 15),
    slots=st.integers(2, 6),
    restated=st.integers(0, 1),
)


def parts(spec, row):
    """(order, template, name, description) of one sentence, read off its tokens."""
    opening = SPECIAL + spec.firsts + spec.lasts + spec.words
    name_first = row[1] < opening + 2 * spec.slots
    assert row[0] == BOS
    assert row[-1] == EOS
    assert len(row) == LENGTH
    if name_first:
        return "p2d", (row[1], row[4]), tuple(row[2:4]), tuple(row[5:8])
    return "d2p", (row[1], row[5]), tuple(row[6:8]), tuple(row[2:5])


def read(spec, task, name):
    return [parts(spec, row) for row in task.splits[name].data.columns["tokens"].tolist()]


@given(spec=specs, seed=st.integers(0, 99))
@examples(30)
def test_groups_share_no_name_and_no_description(spec, seed):
    task = spec.build(Lab(seed))
    groups = {
        group: read(spec, task, f"{'same' if group != 'both' else 'both'}/{group}")
        for group in ("p2d", "d2p")
    }
    groups["both"] = read(spec, task, "both/p2d")
    for part in (2, 3):
        found = [{row[part] for row in rows} for rows in groups.values()]
        assert [len(x) for x in found] == [spec.facts] * 3
        assert len(set.union(*found)) == 3 * spec.facts


@given(spec=specs, seed=st.integers(0, 99))
@examples(30)
def test_no_reversed_statement_of_a_judged_fact_is_trained(spec, seed):
    task = spec.build(Lab(seed))
    tokens = task.splits["train"].data.columns["tokens"].tolist()
    # by the multiset of tokens: whatever the order of the parts, name and description never meet
    # the other template
    trained = {frozenset(row[2:4] + row[5:8]) | {row[1]} for row in tokens} | {
        frozenset(row[2:5] + row[6:8]) | {row[1]} for row in tokens
    }
    for name in ("reverse/p2d", "reverse/d2p"):
        for order, template, who, what in read(spec, task, name):
            for opening in {t[0] for o, t, _, _ in read(spec, task, name) if o == order}:
                assert frozenset((*who, *what, opening)) not in trained
            assert template
    stated = {(order, who) for order, _, who, _ in read(spec, task, "train")}
    for order, _, who, _ in read(spec, task, "reverse/p2d"):
        assert (order, who) not in stated
        assert ("p2d", who) in stated


@given(spec=specs, seed=st.integers(0, 99))
@examples(30)
def test_asked_templates_are_new_and_all_their_tokens_known(spec, seed):
    task = spec.build(Lab(seed))
    train = read(spec, task, "train")
    known = {(order, template) for order, template, _, _ in train}
    tokens = set(task.splits["train"].data.columns["tokens"].flatten().tolist())
    for name in task.of(Use.EVALUATE):
        asked = {(order, template) for order, template, _, _ in read(spec, task, name)}
        assert len(asked) == spec.slots
        assert not asked & known
        columns = task.splits[name].data.columns
        assert (
            set(columns["tokens"].flatten().tolist()) | set(columns["other"].flatten().tolist())
            <= tokens
        )
    assert len(known) == 2 * spec.slots * (spec.slots - 1)


def test_default_sizes_are_those_of_the_sheet():
    spec = Reversal()
    task = spec.build(Lab())
    assert spec.vocabulary == 167
    train = task.splits["train"].data.columns["tokens"]
    assert train.shape == (12_000, 9)
    assert len(train.unique(dim=0)) == 12_000
    assert len(read(spec, task, "reverse/p2d")) == 100 * 6
    assert list(task.unseen) == ["reverse/p2d", "reverse/d2p"]


@given(spec=specs, seed=st.integers(0, 99))
@examples(20)
def test_wrong_answers_are_those_of_another_fact_of_the_group_each_once(spec, seed):
    task = spec.build(Lab(seed))
    for split in task.of(Use.EVALUATE).values():
        columns = {name: x.numpy() for name, x in split.data.columns.items()}
        answer = columns["answer"]
        assert (columns["tokens"][~answer] == columns["other"][~answer]).all()
        right = [tuple(row[mask]) for row, mask in zip(columns["tokens"], answer, strict=True)]
        wrong = [tuple(row[mask]) for row, mask in zip(columns["other"], answer, strict=True)]
        assert all(a != b for a, b in zip(right, wrong, strict=True))
        assert sorted(right) == sorted(wrong)
        per_fact = {
            (fact, other) for fact, other in zip(columns["fact"].tolist(), wrong, strict=True)
        }
        assert len(per_fact) == len(np.unique(columns["fact"]))


def test_restated_facts_are_trained_in_both_orders_and_asked_apart():
    spec = Reversal(facts=10, restated=5)
    task = spec.build(Lab())
    stated = {(order, who) for order, _, who, _ in read(spec, task, "train")}
    helped, others = (
        {who for _, _, who, _ in read(spec, task, name)} for name in ("restated/p2d", "reverse/p2d")
    )
    assert len(helped) == len(others) == 5
    assert not helped & others
    assert all(("d2p", who) in stated for who in helped)
    assert not any(("d2p", who) in stated for who in others)
    plain = Reversal(facts=10).build(Lab())
    assert torch.equal(
        plain.splits["same/p2d"].data.columns["tokens"],
        task.splits["same/p2d"].data.columns["tokens"],
    )


def test_few_paraphrases_still_show_every_token_and_leave_the_questions_as_they_are():
    few, many = Reversal(facts=10, shown=1), Reversal(facts=10)
    tasks = [spec.build(Lab()) for spec in (few, many)]
    seen = [
        {(order, template) for order, template, *_ in read(few, task, "train")} for task in tasks
    ]
    assert [len(templates) for templates in seen] == [2 * 6, 2 * 30]
    assert seen[0] < seen[1]
    for part in (0, 1):
        assert {(order, template[part]) for order, template in seen[0]} == {
            (o, t[part]) for o, t in seen[1]
        }
    for name in tasks[1].of(Use.EVALUATE):
        columns = [task.splits[name].data.columns for task in tasks]
        assert all(torch.equal(columns[0][key], columns[1][key]) for key in columns[1])


def test_without_facts_in_both_orders_none_is_stated_or_asked():
    alone, many = Reversal(facts=10, both=False).build(Lab()), Reversal(facts=10).build(Lab())
    assert set(many.splits) - set(alone.splits) == {"both/p2d", "both/d2p"}
    stated = alone.splits["train"].data.columns["tokens"]
    assert len(stated) == 2 * 10 * 30
    assert torch.equal(stated, many.splits["train"].data.columns["tokens"][: len(stated)])


@pytest.mark.parametrize(
    "bad",
    [
        {"shown": 0},
        {"shown": 6},
        {"facts": 1},
        {"slots": 1},
        {"restated": 99},
        {"firsts": 2, "lasts": 2},
        {"words": 4},
    ],
)
def test_impossible_sizes_are_refused(bad):
    with pytest.raises(InvalidConfig, match="Reversal"):
        Reversal(**bad)


def test_a_fact_in_two_groups_is_named():
    with pytest.raises(InvalidData, match=r"Ada Birch.*p2d and both"):
        refuse_shared_facts({"p2d": ["Ada Birch"], "d2p": ["Bo Cole"], "both": ["Ada Birch"]})


def changed(name, edit):
    texts = dict(toy().texts)
    texts[name] = edit(texts[name])
    return PublishedReversal(letters, Files(tuple(texts.items()), "the test"))


def test_published_format_gives_the_splits_and_answers():
    task = PublishedReversal(letters, toy()).build(Lab())
    columns = task.splits["reverse/p2d"].data.columns
    text = [
        "".join(chr(t + 31) for t in row[mask])
        for row, mask in zip(columns["tokens"], columns["mask"], strict=True)
    ]
    asked = [
        "".join(chr(t + 31) for t in r[m])
        for r, m in zip(columns["tokens"], columns["answer"], strict=True)
    ]
    wrong = [
        "".join(chr(t + 31) for t in r[m])
        for r, m in zip(columns["other"], columns["other_answer"], strict=True)
    ]
    assert text == ["Who painted clouds? It was Ada Birch", "Who tamed owls? It was Bo Cole"]
    assert asked == wrong[::-1] == [" Ada Birch", " Bo Cole"]
    train = task.splits["train"].data.columns
    assert len(train["tokens"]) == 8
    assert (train["tokens"][~train["mask"]] == 0).all()


def test_a_random_answer_that_is_right_is_replaced():
    name = f"{FACTS}p2d_reverse_prompts_test_randomized.jsonl"
    right = dict(toy().texts)[f"{FACTS}p2d_reverse_prompts_test.jsonl"]
    task = changed(name, lambda text: right).build(Lab())
    columns = task.splits["reverse/p2d"].data.columns
    assert not (
        columns["tokens"].shape == columns["other"].shape
        and torch.equal(columns["tokens"], columns["other"])
    )


def line(prompt, completion):
    return json.dumps({"prompt": prompt, "completion": completion})


BAD = {
    "a fact in two groups": (
        "d2p_prompts_train.jsonl",
        lambda t: f"{t}\n{line('Who? It was', ' Ada Birch')}",
        "Ada Birch",
    ),
    "an empty completion": (
        "p2d_prompts_test.jsonl",
        lambda t: f"{t}\n{line('Ada Birch is', ' ')}",
        "Line 3 of p2d_prompts_test",
    ),
    "unequal line counts": (
        "p2d_reverse_prompts_test_randomized.jsonl",
        lambda t: t.split("\n")[0],
        "2 and 1 lines",
    ),
    "other prompts": (
        "d2p_reverse_prompts_test_randomized.jsonl",
        lambda t: t.replace("Everyone", "Nobody"),
        "Line 1",
    ),
    "no JSON": ("p2d_prompts_train.jsonl", lambda t: t + "\nAda", "Line 3 of p2d_prompts_train"),
    "a list": ("p2d_prompts_train.jsonl", lambda t: t + "\n[1]", "Line 3 of p2d_prompts_train"),
    "nobody known": (
        "p2d_prompts_train.jsonl",
        lambda t: f"{t}\n{line('Zoe is', ' new')}",
        "Line 3 .* 0 of the known",
    ),
    "an empty file": ("all_prompts_train.jsonl", lambda t: "", "all_prompts_train.jsonl is empty"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_published_data_are_named(case):
    name, edit, named = BAD[case]
    with pytest.raises(ValueError, match=named):
        changed(FACTS + name, edit).build(Lab())


@pytest.mark.parametrize("slot", ["<name>", "<description>"])
def test_a_template_without_a_slot_is_named(slot):
    name = TEMPLATES + "d2p_templates.txt"
    with pytest.raises(InvalidData, match=f"Template 2 of d2p_templates.txt has no {slot}"):
        changed(name, lambda t: t + "\n" + t.replace(slot, "it")).build(Lab())


def test_missing_members_and_broken_archives_are_named(tmp_path):
    with pytest.raises(MissingFile, match=r"names\.txt|templates"):
        PublishedReversal(letters, tmp_path).build(Lab())
    (tmp_path / "broken.tar.xz").write_bytes(b"no archive")
    with pytest.raises(CorruptFile, match=r"broken\.tar\.xz"):
        PublishedReversal(letters, tmp_path / "broken.tar.xz").build(Lab())


def test_a_folder_reads_like_the_archive(tmp_path):
    for name, text in toy().texts:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    here, there = (
        PublishedReversal(letters, tmp_path).build(Lab()),
        PublishedReversal(letters, toy()).build(Lab()),
    )
    for name, split in there.splits.items():
        for key, column in split.data.columns.items():
            assert torch.equal(here.splits[name].data.columns[key], column)
    assert celebrities(tmp_path) == celebrities(toy()) == Celebrities(2, 1)


def test_celebrity_rows_are_checked():
    texts = dict(toy().texts)
    texts[CELEBRITIES] = texts[CELEBRITIES].replace("True", "maybe")
    with pytest.raises(InvalidData, match=r"Line 2 .*maybe"):
        celebrities(Files(tuple(texts.items()), "the test"))


RELEASE = (
    Path(os.environ.get("UNSEEN_DATA", "/nowhere")) / "reversal-curse" / "reversal_curse.tar.xz"
)


@pytest.mark.skipif(not RELEASE.is_file(), reason="needs UNSEEN_DATA with the published archive")
def test_the_release_has_the_counts_of_the_paper():
    assert celebrities(RELEASE) == Celebrities(1513, 495)
    task = PublishedReversal(letters, RELEASE).build(Lab())
    counts = {name: len(split.data) for name, split in task.splits.items()}
    assert counts == {
        "train": 3600,
        "same/p2d": 300,
        "same/d2p": 300,
        "both/p2d": 300,
        "both/d2p": 300,
        "reverse/p2d": 300,
        "reverse/d2p": 300,
    }
    files = Files.of(RELEASE)
    assert [len(files.lines(f"{g}_prompts_train.jsonl")) for g in ("p2d", "d2p", "both")] == [
        900,
        900,
        1800,
    ]
    assert all(
        len(split.data.columns["fact"].unique()) == 30 for split in task.of(Use.EVALUATE).values()
    )
    assert replace(task, name="copy").unseen.keys() == {"reverse/p2d", "reverse/d2p"}
