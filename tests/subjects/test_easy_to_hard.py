"""Training on items of one hardness, answering those of another."""

import pytest
import torch

from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.methods.choice_head import LinearChoiceHead
from unseen.models.embedders import TfIdf
from unseen.subjects.easy_to_hard import (
    ALL,
    choice_columns,
    demonstrations,
    draw_train_and_test,
    guessing,
    in_context,
    linear_head,
    put_before,
    read_by_embedder,
    read_by_model,
    zero_shot,
)
from unseen.tasks.graded_questions import (
    Item,
    Stratum,
    level_hardness,
    stratify,
    sums,
)

ITEMS = sums(150, 20)
STRATA = stratify(level_hardness(ITEMS, "grade"), (9, 14))
MOST = dict.fromkeys(Stratum, 25)


def draw(n_train=15, runs=3, seed=0):
    return draw_train_and_test(STRATA, n_train, MOST, runs, Lab(seed=seed))


def letters(path):
    pytest.importorskip("transformers")
    from language import llama

    from unseen.models.pretrained import load_causal

    return load_causal(llama(path, context=256))


def test_what_is_evaluated_trains_in_no_run():
    found = draw()
    for stratum in Stratum:
        members = set(STRATA.of(stratum))
        assert set(found.test[stratum]) <= members
        for run in found.train[stratum]:
            assert len(set(run)) == 15
            assert set(run) <= members - set(found.test[stratum])
    assert found.train[Stratum.EASY][0] != found.train[Stratum.EASY][1]
    assert found == draw()
    assert set(found.indices) >= set(found.test[Stratum.HARD])


def test_all_strata_together_are_as_many_as_one():
    found = draw()
    together = found.train_indices(ALL, 0)
    assert len(set(together)) == 15
    assert [len(set(together) & set(STRATA.of(s))) for s in Stratum] == [5, 5, 5]


def test_too_few_items_are_refused_with_both_numbers():
    size = len(STRATA.easy)
    with pytest.raises(InvalidData, match=rf"{size} items are easy; 40 to train on and 20 to eval"):
        draw(n_train=40)
    with pytest.raises(InvalidConfig, match="runs=0"):
        draw(runs=0)


def test_a_head_learns_what_separates_the_choices():
    """Features that mark the right choice of hard items, and nothing on easy ones."""
    hard = set(STRATA.hard)
    features = [
        torch.tensor([[float(k in hard and c == item.answer)] for c in range(len(item.choices))])
        for k, item in enumerate(ITEMS)
    ]
    columns = choice_columns(ITEMS, features)
    method = LinearChoiceHead(penalty=0.01)
    after_hard = linear_head(columns, draw(), Stratum.HARD, Lab(), method)
    after_easy = linear_head(columns, draw(), Stratum.EASY, Lab(), method)
    assert after_hard[Stratum.HARD].shape == (3, 25)
    assert after_hard[Stratum.HARD].mean() == 1
    # no feature differs among easy items: the head has no weight, and every choice ties
    assert after_easy[Stratum.HARD].mean() == pytest.approx(1 / 3)


def test_guessing_is_the_share_of_one_choice():
    assert torch.equal(guessing(ITEMS, draw())[Stratum.HARD], torch.full((1, 25), 1 / 3))


def test_embedded_choices_keep_their_order():
    embedder = TfIdf().fit([item.question for item in ITEMS])
    columns = read_by_embedder(embedder, ITEMS).columns
    texts = [f"{ITEMS[5].question} {choice}" for choice in ITEMS[5].choices]
    assert torch.allclose(columns["x"][5], embedder.embed(texts))


def test_a_language_model_is_read_once_per_item(tmp_path):
    from unseen.engine.choice_likelihood import Precision, choice_likelihoods

    model = letters(tmp_path)
    items = ITEMS[:40]
    found = read_by_model(model, items, Precision.FLOAT32, Lab())
    alone = choice_likelihoods(model, [items[3].prompt], [items[3].continuations])[0]
    assert torch.allclose(found.score[3], alone.total, atol=1e-4)
    assert found.columns.columns["x"].shape == (40, 3, 2 * 16)
    assert found.columns.columns["present"].all()
    hits = zero_shot(found, items, type(draw())({}, {Stratum.HARD: (3, 7)}))
    right = found.score.argmax(1) == torch.tensor([item.answer for item in items])
    assert hits[Stratum.HARD].tolist() == [[float(right[3]), float(right[7])]]


def test_examples_stand_before_the_question(tmp_path):
    item = Item("Which {one}?", ("a", "b"), 1)
    text = demonstrations([item])
    assert text == "Question: Which {one}?\nAnswer: b\n\n"
    assert put_before(text, item).prompt == text + item.prompt
    assert put_before(text, item).continuations == item.continuations


def test_in_context_answers_depend_on_the_examples_only_through_the_prompt(tmp_path):
    from unseen.engine.choice_likelihood import Precision

    model, few = letters(tmp_path), draw(runs=2)
    evaluate = {Stratum.HARD: few.test[Stratum.HARD][:6]}
    found = in_context(model, ITEMS, few, Stratum.EASY, evaluate, 2, Precision.FLOAT32, Lab())[
        Stratum.HARD
    ]
    assert found.shape == (2, 6)
    before = demonstrations([ITEMS[k] for k in few.train_indices("easy", 1)[:2]])
    chosen = [put_before(before, ITEMS[k]) for k in evaluate[Stratum.HARD]]
    scores = read_by_model(model, chosen, Precision.FLOAT32, Lab(), layers=False).score
    right = scores.argmax(1) == torch.tensor([item.answer for item in chosen])
    assert torch.equal(found[1], right.float())


def test_fine_tuning_starts_from_the_same_model_and_learns(tmp_path):
    from unseen.engine.choice_likelihood import Precision
    from unseen.engine.loop import Budget
    from unseen.methods.response_finetune import ResponseFinetune
    from unseen.subjects.easy_to_hard import fine_tuned

    model = letters(tmp_path)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    method = ResponseFinetune(Budget(steps=3, batch_size=4, lr=1e-3))
    found = fine_tuned(model, ITEMS, draw(runs=1), Stratum.EASY, method, Precision.FLOAT32, Lab())
    assert found[Stratum.HARD].shape == (1, 25)
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
