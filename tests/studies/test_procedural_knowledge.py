"""The study end to end at smoke scale, its scores against dense matrices, and its claims on rows
made by hand.
"""

from dataclasses import replace

import pytest
import torch
from oracles import gradients
from oracles import influence as oracle
from scipy.stats import spearmanr
from torch.testing import assert_close

from unseen.attributions.influence import Curvature, Fisher, Influence, sequence_nats
from unseen.engine.batches import Columns
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.measures.influence_volatility import per_nat
from unseen.measures.query_correlation import blocks, correlations
from unseen.objectives import sequence_log_probability
from unseen.studies.procedural_knowledge import (
    CLAIMS,
    MLPS,
    C,
    F,
    P,
    R,
    S,
    across,
    beyond_format,
    columns,
    fall,
    influence,
    of_blocks,
    real,
    relation,
    retrain_on_subsets,
    same_format,
    study,
    table,
    without,
)
from unseen.study import Scale, Verdict, pick
from unseen.tasks.procedural_corpus import PROCEDURES, SPLITS, Kind, Queries, ask

SMOKE = study.scales[Scale.SMOKE]
DOUBLE = Lab(dtype=torch.float64)


@pytest.fixture(scope="module")
def rows(smoke_runs):
    return smoke_runs.rows(study.name)


@pytest.fixture(scope="module")
def fitted():
    task = SMOKE.task.build(DOUBLE.child("data"))
    return retrain_on_subsets(
        SMOKE, task, torch.ones(1, SMOKE.task.documents, dtype=torch.bool), DOUBLE
    )[0]


def questions(trained):
    """Of the smoke scale."""
    return ask(trained, SMOKE.queries, SMOKE.is_right)


def test_smoke_gives_every_block_and_group_and_can_be_drawn(rows):
    assert len(pick(rows, part="block")) == 2 * 15
    assert len(pick(rows, part="group")) == 2 * 5
    assert len(pick(rows, part="source")) == 2 * 5 * 5 * 2
    assert len(pick(rows, part="removal")) == 3
    assert {claim.judge(rows, Scale.SMOKE).verdict for claim in CLAIMS} == {Verdict.NOT_JUDGED}
    (row,) = pick(table(rows), curvature="ekfac", group=str(Kind.FACT))
    (tail,) = pick(rows, part="tail", group=str(Kind.FACT), side="helpful")
    assert (len(table(rows)), row["volatility"], row["of"]) == (10, tail["volatility"], 15)
    for figure in study.figures:
        assert figure(rows).title


def test_heat_maps_are_symmetric_and_hold_the_blocks(rows):
    drawn = study.figures[0](rows).values
    assert_close(torch.tensor(drawn), torch.tensor(drawn).T)
    (row,) = pick(
        rows, part="block", curvature="ekfac", first=str(Kind.POSTFIX), second=str(Kind.FACT)
    )
    assert drawn[P][F] == row["value"]
    sources = study.figures[2](rows).values
    (row,) = pick(
        rows, part="source", curvature="ekfac", group="fact", source="filler", bottom=False
    )
    assert sources[F][C] == row["enrichment"]


def test_scores_are_those_of_dense_matrices_and_ekfac_orders_the_blocks_alike(fitted):
    queries = questions(fitted)
    names = [name for name, _ in fitted.model.named_parameters() if ".mlp." in name]

    def each(batch, f):
        found = gradients.per_example_gradients(fitted.model, batch, f)
        return gradients.flattened({name: found[name] for name in names})

    documents = each(columns(fitted.task, "train"), sequence_nats)
    curvature = documents.T @ documents / len(documents)
    want = oracle.scores(each(queries.batch, sequence_log_probability), documents, curvature, 0.1)
    means = []
    for kind in (Curvature.EXACT, Curvature.EKFAC):
        plug = Influence(
            kind, Fisher.EMPIRICAL, layers=MLPS, loss=sequence_nats, real=real, batch_size=100
        )
        scores = plug.prepare(fitted, DOUBLE)(queries.batch, sequence_log_probability).scores
        if kind is Curvature.EXACT:
            assert_close(scores, want)
        means.append(blocks(correlations([scores]), queries.group, DOUBLE.numpy(), 5).means)
    above = torch.triu_indices(5, 5)
    assert spearmanr(*(mean[above[0], above[1]].numpy() for mean in means)).statistic > 0.7


def test_queries_are_the_models_own_completions_with_their_nats(fitted):
    queries = questions(fitted)
    with torch.no_grad():
        logits = fitted.model(queries.tokens)
        assert_close(-sequence_log_probability(fitted.model, queries.batch), queries.nats)
    for q in range(len(queries.nats)):
        for at in queries.mask[q].nonzero().flatten().tolist():
            assert queries.tokens[q, at] == logits[q, at - 1].argmax()
        said = queries.tokens[q][queries.mask[q]].tolist()
        assert [t for t in queries.says[q].tolist() if t >= 0] == (
            [] if queries.group[q] == C else said
        )
    assert torch.bincount(queries.group).tolist() == [5] * 5


def rewritten(task, kind, change):
    """The task with the answers of one kind's questions changed."""
    split = task.splits[SPLITS[kind]]
    data = split.data.columns
    tokens = torch.where(data["answer"], change(data["tokens"]), data["tokens"])
    return replace(
        task,
        splits={
            **task.splits,
            SPLITS[kind]: replace(split, data=Columns(**{**data, "tokens": tokens})),
        },
    )


def test_only_right_answers_are_asked_where_the_study_says_so(fitted):
    own, task = ask(fitted, 10, is_right=False), fitted.task

    def right_in_rows(kind, *rows):
        def change(tokens):
            changed, mine = torch.zeros_like(tokens), own.tokens[own.of(kind.number)]
            for row in rows:
                changed[row] = mine[row]
            return changed

        return change

    for kind in (*PROCEDURES, Kind.FACT):
        task = rewritten(task, kind, right_in_rows(kind, 2, 5))
    found = ask(replace(fitted, task=task), 10)
    assert torch.bincount(found.group).tolist() == [2, 2, 2, 2, 10]
    for kind in (S, P, R, F):
        assert torch.equal(found.tokens[found.of(kind)], own.tokens[own.of(kind)][[2, 5]])
    task = rewritten(task, Kind.FACT, torch.zeros_like)
    with pytest.raises(InvalidData, match="None of the 15 queries of “fact” is answered right"):
        ask(replace(fitted, task=task), 10)


def test_an_empty_completion_has_neither_nats_nor_a_correlation(fitted):
    queries = questions(fitted)
    mask = queries.mask.clone()
    mask[2] = False
    bare = Queries(queries.tokens, mask, queries.nats, queries.group, queries.says, queries.fact)
    scores = influence(Curvature.EKFAC, fitted, bare, DOUBLE)
    with pytest.raises(InvalidData, match="Query 2 has the same score"):
        correlations([scores])
    with torch.no_grad(), pytest.raises(InvalidData, match="query 2 has 0 nats"):
        per_nat(scores, sequence_log_probability(fitted.model, bare.batch).abs())


def test_the_same_triple_asked_twice_correlates_one_and_another_format_less(fitted):
    queries = questions(fitted)
    first = queries.of(S).nonzero()[0]
    twice = Queries(
        *(
            torch.cat([getattr(queries, n), getattr(queries, n)[first]])
            for n in Queries.__annotations__
        )
    )
    found = correlations([influence(Curvature.EKFAC, fitted, twice, DOUBLE)])
    assert float(found[int(first), -1]) == pytest.approx(1)
    assert float(found[:-1, -1][queries.of(P)].max()) < 0.99


def test_a_fall_is_the_difference_of_log_probabilities(fitted):
    queries, rows = questions(fitted), torch.tensor([3, 17])
    other = retrain_on_subsets(
        replace(SMOKE, budget=replace(SMOKE.budget, steps=5)),
        fitted.task,
        torch.ones(1, 300).bool(),
        DOUBLE,
    )
    with torch.no_grad():
        before, after = (
            sequence_log_probability(m.model, queries.batch)[rows] for m in (fitted, other[0])
        )
    assert_close(fall(fitted, other[0], queries, rows, DOUBLE), before - after)
    assert_close(fall(fitted, fitted, queries, rows, DOUBLE), torch.zeros(2, dtype=torch.float64))
    kept = without(6, torch.tensor([1, 4]), torch.tensor([0]))
    assert kept.tolist() == [[True, False, True, True, False, True], [False] + [True] * 5]


def test_contrasts_compare_the_blocks_they_name():
    means = torch.arange(25, dtype=torch.float64).view(5, 5)
    means = (means + means.T) / 2
    assert across(means) == (means[0, 2] + means[1, 2]) / 2
    assert beyond_format(means) == means[0, 1] - 1.3 * means[1, 2]
    assert same_format(means) == (means[0, 0] + means[1, 1]) / 2 - means[0, 1]
    relations = {relation(one, two) for one in range(5) for two in range(one, 5)}
    assert relations == {
        "same",
        "other format",
        "other procedure",
        "fact",
        "control",
        "control alone",
    }
    assert (relation(S, P), relation(S, R), relation(P, R)) == (
        "other format",
        "other procedure",
        "other procedure",
    )
    assert relation(F, F) == relation(R, F) == "fact"


def test_the_worst_block_is_a_mean_over_seeds():
    rows = [
        {"part": "block", "first": first, "second": "b", "seed": seed, "value": value + seed / 100}
        | {"relation": "same", "curvature": "ekfac"}
        for first, value in (("a", 0.5), ("b", 0.3))
        for seed in range(3)
    ]
    lowest = of_blocks("value", 1.0, relation="same")(rows)
    assert (lowest.value, lowest.n) == (pytest.approx(0.31), 3)
    assert of_blocks("value", 0.0, relation="same")(rows).value == pytest.approx(0.51)
    with pytest.raises(InvalidData, match="No row has `pair`"):
        of_blocks("value", 0.0, relation="fact")(rows)


def fake(same: float, fact: float, found: int, neither: float = 0.0):
    """Rows as three seeds would give them."""
    made = []
    for seed in range(3):
        values = {
            "same": same,
            "fact": fact,
            "other format": 0.12,
            "other procedure": 0.06,
            "control alone": neither,
        }
        kinds = list(Kind)
        for one in range(5):
            for two in range(one, 5):
                kind = relation(one, two)
                names = {"first": str(kinds[one]), "second": str(kinds[two]), "relation": kind}
                made.append({"part": "block", **names, "value": values.get(kind, 0.0)})
                made[-1]["null"] = 0.001
        for kind in PROCEDURES:
            gap = {"contrast": "same procedure − fact", "value": same - fact}
            made.append({"part": "contrast", "first": str(kind), **gap})
        for name, value in (
            ("other format − 1.3 · other procedure", 0.12 - 1.3 * 0.06),
            ("same format − other format", same - 0.12),
            ("fall, top − 5 · |random|", 5.0),
            ("dot product − EK-FAC, other procedure", 0.1),
        ):
            made.append({"part": "contrast", "contrast": name, "value": value})
        for kind in Kind:
            made.append(
                {
                    "part": "group",
                    "group": str(kind),
                    "queries": 40,
                    "hits": found,
                    "excess": 0.004,
                    "right": 299,
                    "tried": 300,
                }
            )
        for row in made:
            row.setdefault("seed", seed)
            row["curvature"] = "ekfac"
            for name in ("value", "excess", "null"):  # seeds differ
                if name in row and row["seed"] == seed:
                    row[name] += 1e-4 * seed
    return made


def test_claims_follow_the_rows():
    assert {claim.judge(fake(0.2, 0.0, 40), Scale.LAPTOP).verdict for claim in CLAIMS} == {
        Verdict.SUPPORTED
    }
    refuted = [
        c.says
        for c in CLAIMS
        if c.judge(fake(0.07, 0.08, 30, neither=0.3), Scale.LAPTOP).verdict is Verdict.REFUTED
    ]
    # same document, format, facts, procedures above facts, answers of facts; and no procedure:
    # with each other, and against those of a procedure
    assert len(refuted) == 7


def test_one_block_that_differs_is_not_averaged_away():
    rows = fake(0.2, 0.0, 40)
    for row in rows:
        if row.get("relation") == "same" and row["first"] == str(Kind.REVERSAL):
            row["value"] -= 0.15
    verdicts = [claim.judge(rows, Scale.LAPTOP).verdict for claim in CLAIMS]
    assert verdicts.count(Verdict.REFUTED) == 1
