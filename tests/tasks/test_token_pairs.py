"""Pairs as a task: only the answer counts, its end included; split rules do what they say."""

import json

import pytest
import torch
from torch import nn

from unseen.engine.loop import Budget
from unseen.engine.token_pairs import (
    END,
    PAD,
    TO,
    Pair,
    Vocabulary,
    cut_padding,
    encode_pairs,
    group_lengths,
    pair,
    write_answers,
)
from unseen.errors import InvalidConfig, InvalidData, MissingFile, UnknownName
from unseen.lab import Lab
from unseen.methods.erm import ERM
from unseen.models.transformer import Decoder, Positions, Transformer
from unseen.objectives import exact_match
from unseen.task import Axis
from unseen.tasks.scan import RULES as SCAN_RULES
from unseen.tasks.scan import commands
from unseen.tasks.token_pairs import (
    TokenPairs,
    accuracy_by,
    at_length,
    example,
    from_split,
    read_pairs,
    rename_tokens,
    split_by_divergence,
    split_by_length,
    split_by_primitive,
    split_by_template,
    split_by_word,
)
from unseen.tasks.token_pairs.rules import divergence

PAIRS = [pair("go up", "U"), pair("go up twice", "U U"), pair("stay", "")]


class Table(nn.Module):
    """Logits that depend on the last token only, from a table of next tokens."""

    def __init__(self, following, size):
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(size, size))
        with torch.no_grad():
            for token, after in following.items():
                self.scores[token, after] = 9.0

    def forward(self, tokens):
        return self.scores[tokens]


def test_a_pair_is_source_target_and_end():
    words = Vocabulary.of(PAIRS)
    assert len(words) == 3 + 5
    data = encode_pairs(PAIRS, words)
    row = data[1]
    prompt = [*words.encode(("go", "up", "twice")), TO]
    assert row["tokens"].tolist() == [*prompt, *words.encode("UU"), END]
    assert row["mask"].tolist() == [False] * 4 + [True] * 3
    assert data[2]["tokens"].tolist()[:3] == [words.number["stay"], TO, END]
    assert data[2]["tokens"].tolist()[3:] == [PAD] * 4
    assert data.columns["length"].tolist() == [1, 2, 0]
    assert words.decode(words.encode(("go", "U"))) == ("go", "U")


def test_not_to_stop_is_wrong_and_the_source_does_not_count():
    one = [pair("a", "b")]
    words = Vocabulary.of(one)
    batch = dict(encode_pairs(one, words)[0:1])
    b = words.number["b"]
    right = Table({TO: b, b: END}, len(words))
    assert exact_match.score(right, batch).tolist() == [1]
    assert exact_match.score(Table({TO: b, b: b}, len(words)), batch).tolist() == [0]
    other = {**batch, "tokens": batch["tokens"].clone()}
    other["tokens"][0, 0] = b  # another source: the same loss
    assert exact_match.loss(right, batch) == exact_match.loss(right, other)


def test_cut_padding_changes_no_number():
    task = example().build(Lab())
    data = encode_pairs([pair("a", "b"), pair("a b c", "b a c c c")], Vocabulary(("a", "b", "c")))
    with Lab().seeded():
        model = Transformer(Decoder(vocabulary=6, width=16, heads=2, layers=1))
    short = cut_padding(task.objective)
    for f, g in ((task.objective.loss, short.loss), (task.objective.score, short.score)):
        for part in (data[0:1], data[0:2]):
            torch.testing.assert_close(f(model, part), g(model, part))


def test_scores_are_exact_match_of_greedy_answers():
    spec = example()
    task = spec.build(Lab())
    words = spec.vocabulary
    shape = Decoder(vocabulary=len(words), width=32, heads=2, layers=1, positions=Positions.ROTARY)
    with Lab().seeded():
        model = Transformer(shape)
    trained = ERM(Budget(steps=60, batch_size=12, lr=3e-3)).fit(model, task, Lab(1))
    pairs = (*spec.train, *spec.evaluate["unseen"])
    answers = write_answers(trained.model, [p.source for p in pairs], words, 5)
    data = encode_pairs(pairs, words)
    scores = task.objective.score(trained.model, data[0 : len(pairs)])
    assert scores.tolist() == [float(a == p.target) for a, p in zip(answers, pairs, strict=True)]
    table = accuracy_by(trained, "train", "length", Lab())
    assert list(table) == [2]
    assert table[2].n == len(spec.train)
    with pytest.raises(UnknownName, match="type"):
        accuracy_by(trained, "train", "type", Lab())


def test_positions_on_the_axis():
    pairs = [pair("x " * n, "x " * n) for n in range(1, 7)]
    spec = TokenPairs("copy", tuple(pairs[:3]), {"longer": tuple(pairs[3:])}, Axis.LENGTH)
    five = at_length(spec, 5)
    assert [len(p.target) for p in five.evaluate["longer"]] == [5]
    assert five.build(Lab()).splits["longer"].at == 5.0
    with pytest.raises(UnknownName, match="length `7`"):
        at_length(spec, 7)


def test_training_pairs_in_evaluation_are_refused():
    with pytest.raises(InvalidData, match="1 pairs of `test`"):
        TokenPairs("mine", (PAIRS[0],), {"test": (PAIRS[0],)})
    spec = TokenPairs("mine", (PAIRS[0],), {"test": (PAIRS[0],)}, repeats=True)
    assert spec.recalls == {"test"}
    with pytest.raises(InvalidData, match="for evaluation in"):
        TokenPairs("mine", (PAIRS[0],), {})


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_pairs_are_read_from_files(tmp_path, ending):
    file = tmp_path / f"pairs.{ending}"
    if ending == "jsonl":
        lines = [json.dumps({"in": " ".join(s), "out": " ".join(t)}) for s, t in PAIRS]
    else:
        by = {"csv": ",", "tsv": "\t"}[ending]
        lines = [f"in{by}out", *(f"{' '.join(s)}{by}{' '.join(t)}" for s, t in PAIRS)]
    file.write_text("\n".join(lines) + "\n")
    assert read_pairs(file, "in", "out") == PAIRS
    with pytest.raises(UnknownName, match="source"):
        read_pairs(file, "source", "out")


def test_marks_of_order_and_line_separators_inside_a_text_are_read(tmp_path):
    (tmp_path / "a.JSONL").write_text('\ufeff{"source": "a\u2028b", "target": "c"}\n', "utf-8")
    assert read_pairs(tmp_path / "a.JSONL") == [Pair(("a", "b"), ("c",))]
    (tmp_path / "a.TSV").write_bytes("\ufeffsource\ttarget\r\na b\tc\r\n".encode())
    assert read_pairs(tmp_path / "a.TSV") == [Pair(("a", "b"), ("c",))]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.tsv", "source\ttarget\n\xe9\tb\n".encode("latin-1"), "not UTF-8"),
        ("a.jsonl", '{"source": "\xe9", "target": "b"}'.encode("latin-1"), "not UTF-8"),
        ("a.jsonl", b'{"source": ["a", "b"], "target": "b"}', "no text in `source`"),
        ("a.jsonl", b'{"source": "a", "target": {"x": 1}}', "no text in `target`"),
        ("a.jsonl", b'{"source": "a", "target": null}', "no text in `target`"),
        ("a.jsonl", b'{"source": "a \\ud83d", "target": "b"}', r"half a character, \\ud83d"),
        ("a.tsv", b"source\ttarget\na\tb\nab\n", "Line 3 of a.tsv has no text in `target`"),
        ("a.csv", b'source,target\na,"' + b"b " * 90_000, "cannot be read behind line"),
    ],
)
def test_what_is_no_pair_of_texts_is_named(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidData, match=words):
        read_pairs(tmp_path / name)


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(MissingFile):
        read_pairs(tmp_path / "none.tsv")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InvalidData, match=r"ends in `\.txt`"):
        read_pairs(tmp_path / "a.txt")
    (tmp_path / "a.tsv").write_text("source\ttarget\n\tx\n")
    with pytest.raises(InvalidData, match=r"Line 2 of a\.tsv has an empty source"):
        read_pairs(tmp_path / "a.tsv")
    (tmp_path / "b.tsv").write_text("source\ttarget\n")
    with pytest.raises(InvalidData, match="holds no pairs"):
        read_pairs(tmp_path / "b.tsv")
    (tmp_path / "b.jsonl").write_text('{"source": "a", "target": "b"}\n[]\n')
    with pytest.raises(InvalidData, match=r"Line 2 of b\.jsonl"):
        read_pairs(tmp_path / "b.jsonl")
    with pytest.raises(InvalidData, match="Pair 1 has an empty source"):
        encode_pairs([Pair((), ("a",))], Vocabulary(("a",)))
    with pytest.raises(InvalidData, match="no pairs"):
        encode_pairs([], Vocabulary(()))
    with pytest.raises(UnknownName, match="token `z`"):
        Vocabulary(("a",)).encode("z")


def test_rules_give_the_splits_of_scan():
    pairs = commands()
    length, scan = split_by_length(pairs, longest=22), SCAN_RULES["length"]()
    assert set(length.train) == set(scan.train)
    assert set(length.test) == set(scan.test)
    jump, scan = split_by_primitive(pairs, token="jump"), SCAN_RULES["addprim_jump"]()
    assert set(jump.train) == set(scan.train)
    assert set(jump.test) == set(scan.test)
    around = split_by_template(pairs, template="jump around right")
    assert set(around.test) >= set(SCAN_RULES["template_jump_around_right"]().test)


@pytest.mark.parametrize(
    "rule",
    [split_by_length, split_by_primitive, split_by_template, split_by_divergence, split_by_word],
)
def test_every_rule_parts_the_pairs_near_the_wanted_share(rule):
    pairs = commands()[::7]
    split = rule(pairs, 0.3)
    assert sorted((*split.train, *split.test, *split.left_out)) == sorted(pairs)
    assert split.overlap == 0
    assert split.unknown_words == ()
    assert 0.15 <= len(split.test) / len(pairs) <= 0.5
    assert split.counts()["train"] == len(split.train)
    assert rule(pairs, 0.3) == split
    assert from_split("mine", split, Axis.COMPOSITION).evaluate["unseen"] == split.test


def test_length_parts_without_a_limit_by_share():
    split = split_by_length([pair("a " * n, "b " * n) for n in range(1, 11)], 0.2)
    assert [len(p.target) for p in split.test] == [9, 10]


def test_divergence_is_a_chernoff_coefficient():
    a, b = {"x": 1, "y": 3}, {"y": 1, "z": 1}
    assert divergence(a, b, 0.1) == pytest.approx(1 - 0.75**0.1 * 0.5**0.9)
    assert divergence(a, a, 0.5) == pytest.approx(0)
    assert divergence({"x": 1}, {"z": 1}, 0.5) == 1


def test_compounds_diverge_more_than_in_a_random_split_and_words_do_not():
    pairs = commands()[::20]
    first, later = (split_by_divergence(pairs, steps=n).rule for n in (0, 3_000))
    numbers = [[float(w.strip(",")) for w in r.split() if w[0] == "0"] for r in (first, later)]
    assert numbers[1][0] > numbers[0][0] + 0.05
    assert numbers[1][1] <= 0.02


def test_held_out_words_are_shown_in_few_contexts():
    split = split_by_word(commands()[::7], 0.3, contexts=2)
    words = split.rule.split(":")[0].split(", ")
    for word in words:
        assert sum(word in p.source for p in split.train) == 2
    assert all(sum(w in p.source for w in words) == 1 for p in split.test)


def test_renaming_is_one_to_one_and_the_same_on_both_sides():
    pairs = [pair("copy a b", "a b"), pair("copy b", "b")]
    renamed = rename_tokens(pairs, ("a", "b"), seed=1)
    a, b = renamed[0].target
    assert renamed[0].source == ("copy", a, b)
    assert renamed[1] == Pair(("copy", b), (b,))
    assert len({a, b, "copy", "a"}) == 4
    with pytest.raises(UnknownName, match="token `c`"):
        rename_tokens(pairs, ("c",))


def test_rules_refuse_what_they_cannot_do():
    with pytest.raises(InvalidData, match="no pairs"):
        split_by_length([])
    with pytest.raises(InvalidConfig, match="share=1"):
        split_by_length(PAIRS, 1.0)
    with pytest.raises(InvalidData, match="single token"):
        split_by_primitive(PAIRS[:2])
    with pytest.raises(UnknownName, match="stands alone"):
        split_by_primitive(PAIRS, token="go")
    with pytest.raises(InvalidData, match="0 test pairs"):
        split_by_template(PAIRS, template="up go")
    with pytest.raises(InvalidData, match="occur apart"):
        split_by_template([pair("a b", "c")])
    with pytest.raises(InvalidConfig, match="contexts=0"):
        split_by_word(PAIRS, contexts=0)


def test_groups_of_like_lengths_give_the_same_numbers():
    """Also where a batch holds fewer examples than groups, and in gradients."""
    pairs = [pair("go " * (k % 5 + 1), "U " * (k % 7)) for k in range(11)]
    words = Vocabulary.of(pairs)
    shape = Decoder(vocabulary=len(words), width=16, layers=1, heads=2, positions=Positions.NONE)
    with Lab().seeded():
        model = Transformer(shape).double()
    grouped = group_lengths(exact_match)
    for n in (1, 2, 11):
        batch = encode_pairs(pairs, words)[:n]
        for one, other in ((grouped.loss, exact_match.loss), (grouped.score, exact_match.score)):
            assert torch.allclose(one(model, batch), other(model, batch), atol=1e-12)
    batch = encode_pairs(pairs, words)[:]
    first, second = (
        torch.autograd.grad(loss(model, batch).sum(), model.embed.weight)[0]
        for loss in (grouped.loss, exact_match.loss)
    )
    assert torch.allclose(first, second, atol=1e-10)
