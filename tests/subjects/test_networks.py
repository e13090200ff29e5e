"""The ready network of a table: it stops early, and of very wide tables reads what tells the
target.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import pearsonr

from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.subjects.networks import budget_for_table, small_network, telling_inputs
from unseen.subjects.sources import with_steps
from unseen.subjects.tables import TableColumns, of_table


def wide(rows: int = 300, inputs: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs of which the first three carry the target."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, inputs))
    y = x[:, :3].sum(1) + rng.normal(size=rows) > 0
    return torch.tensor(x).float(), torch.tensor(y).long()


def test_of_many_inputs_those_that_tell_the_target_are_read():
    x, y = wide()
    chosen = telling_inputs(x, y)
    assert chosen is not None
    assert set(chosen) >= {0, 1, 2}
    assert len(chosen) <= 10


def test_the_choice_is_benjamini_and_hochbergs():
    x, y = wide()
    p = np.array([pearsonr(x[:, k], y).pvalue for k in range(x.shape[1])])
    ranked = np.sort(p)
    below = np.flatnonzero(ranked <= 0.1 * np.arange(1, len(p) + 1) / len(p))
    expected = np.flatnonzero(p <= ranked[below.max()])
    assert sorted(set(expected) | set(np.argsort(p)[:5])) == telling_inputs(x, y)


def test_the_choice_does_not_depend_on_units_or_on_which_class_is_which():
    x, y = wide()
    assert telling_inputs(3 * x + 7, 1 - y) == telling_inputs(x, y)


def test_all_inputs_are_read_where_there_are_rows_enough_and_constants_never_first():
    x, y = wide(rows=1_200)
    assert telling_inputs(x, y) is None
    x, y = wide()
    x[:, 1:] = 1.0
    assert 0 in (telling_inputs(x, y) or ())


def test_a_network_of_chosen_inputs_ignores_the_others():
    x, _ = wide()
    model, other = small_network(200, 2, [4, 9]), x.clone()
    other[:, [0, 1, 2, 3]] += 1
    assert torch.equal(model(x), model(other))
    other[:, 9] += 1
    assert not torch.equal(model(x), model(other))


def test_the_report_says_how_the_network_of_a_table_is_trained():
    x, y = wide()
    frame = pd.DataFrame(x.numpy(), columns=[f"c{k}" for k in range(200)])
    frame = frame.assign(ill=y.numpy(), site=np.resize(["a", "b", "c"], len(frame)))
    one = of_table(frame, Lab(), TableColumns(target="ill", site="site"))[0]
    (said,) = [text for text in one.decisions if "multilayer perceptron" in text]
    assert "there are 200 inputs" in said
    assert "early stopping" in said
    short = with_steps(one, 40)
    assert short.budget.select_every == 2
    assert "for 40 steps" in " ".join(short.decisions)
    with pytest.raises(InvalidConfig, match="steps=0"):
        with_steps(one, 0)


@pytest.mark.parametrize(("rows", "steps"), [(100, 60), (1_000, 234), (100_000, 3_000)])
def test_the_budget_of_a_table_reads_about_twenty_times(rows, steps):
    budget = budget_for_table(rows)
    assert budget.steps == steps
    assert 19 <= budget.steps // budget.select_every <= 21
