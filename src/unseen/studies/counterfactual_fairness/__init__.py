"""Codes that hide the group, learned over drifting domains, lower the counterfactual effect on
people of later ones.

CDSAE, Lin et al. (2023), arXiv:2309.13005, in worlds of our own (the paper's are not public): a
plane that turns by 10° per domain, so that later domains lie well beyond the fitted ones; the same
at 3°; a cloud on a circle. There the true counterfactual is known. On real data (COMPAS) effects
are model-based, and called so: `own` takes the model's counterfactuals as the paper does,
`additive` exchanges the groups' means within a domain, without any decoder.

λ was decided on seeds 1000 and 1001 of the plane, which are not judged, and on people of the last
fitted domain alone: of the grid with λ_f = 1, the largest λ_tc at which accuracy there is within a
point of the autoencoder's (85.4 %; with 1, 3 and 10 it is 86.1, 85.3 and 84.3). That is λ_tc = 3.
Weights of 1, 1 and 3, 2, as first tried, are reported beside it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from unseen import stats
from unseen.engine.loop import Budget
from unseen.errors import Divergence
from unseen.figure import Bars, Points
from unseen.lab import Lab
from unseen.method import Trained
from unseen.methods.cdsae import CDSAE, Adversary
from unseen.studies.counterfactual_fairness.arms import (
    BOTH,
    JUDGED,
    MUCH_FAIRNESS,
    NONE,
    ONLY_FAIRNESS,
    SMALL,
    Arm,
    Cell,
    Config,
    Entry,
    Where,
    add_group_input,
    autoencoders,
    drop_group_input,
    plain,
    settings,
)
from unseen.studies.counterfactual_fairness.claims import CLAIMS
from unseen.studies.counterfactual_fairness.rows import (
    adversary_accuracy,
    evaluate,
    oracles,
    telling,
)
from unseen.study import Row, Rows, Scale, Study, Value, column, figures, pick
from unseen.study.effects import distinct
from unseen.study.source import Source
from unseen.tasks.drifting_fairness import DriftingFairness


def cells(config: Config) -> Iterator[Cell]:
    for setting in config.settings:
        yield Cell(config, setting, Adversary.SEMANTIC, 0)
    yield Cell(config, config.settings[0], Adversary.UNINFLUENCED, 0)


def run(cell: Cell, lab: Lab) -> Iterator[Row]:
    """One row per arm and seed; a model that diverged has no more than `diverged` = 1."""
    config, spec = cell.config, cell.setting.spec
    labs = [replace(lab, seed=lab.seed + k) for k in range(config.seeds)]
    tasks = [add_group_input(spec.build(each.child("data"))) for each in labs]
    if cell.adversary is Adversary.UNINFLUENCED:
        found = list(autoencoders([BOTH], cell.adversary, config, tasks, labs))
    else:
        found = list(autoencoders(config.penalties, cell.adversary, config, tasks, labs))
        found += plain(Arm.TOLD, config, tasks, labs)
        found += plain(Arm.HIDDEN, config, [drop_group_input(task) for task in tasks], labs)
        if isinstance(spec, DriftingFairness):
            for k, task in enumerate(tasks):
                for arm, row in oracles(spec, task):
                    yield {
                        "where": str(cell.setting.where),
                        "arm": str(arm),
                        "seed": labs[k].seed,
                        **row,
                    }
    for row in read(found, cell.config, labs):
        yield {"where": str(cell.setting.where), **row}


def read(found: Sequence[Entry], config: Config, labs: Sequence[Lab]) -> Iterator[dict[str, Value]]:
    """The rows of trained models; the new adversaries of models of one kind are trained
    together.
    """
    for name, k, result in found:
        if isinstance(result, Divergence):
            yield {"arm": name, "seed": labs[k].seed, "diverged": 1}
    finished = [(name, k, result) for name, k, result in found if isinstance(result, Trained)]
    coded = {name for name, _, _ in finished if "CDSAE" in name}
    for kind in (coded, {Arm.TOLD}, {Arm.HIDDEN}):
        mine = [entry for entry in finished if entry[0] in kind]
        if not mine:
            continue
        models, own = [each for _, _, each in mine], [labs[k] for _, k, _ in mine]
        tells: dict[str, list[float]] = {"adversary": telling(models, config, own)}
        if kind is coded:
            tells["adversary_sampled"] = telling(models, config, own, sampled=True)
        for j, (name, k, each) in enumerate(mine):
            facts: dict[str, Value] = {"arm": name, "seed": labs[k].seed, "diverged": 0}
            found_out = {title: values[j] for title, values in tells.items()}
            yield {
                **facts,
                **evaluate(each, labs[k]),
                **adversary_accuracy(each, labs[k]),
                **found_out,
            }


def table(rows: Rows) -> Sequence[Row]:
    """Means over seeds, in percent and points. `additive` and `own` are model-based; on COMPAS
    there is no true effect.
    """
    columns = {
        "accuracy": "accuracy",
        "on fitted domain": "present",
        "against fair labels": "fair_accuracy",
        "true effect": "true",
        "additive effect": "outside",
        "own effect": "own",
        "flips": "flips",
        "parity gap": "parity",
        "odds gap": "odds",
        "adversary": "own_adversary",
        "new adversary, drawn codes": "adversary_sampled",
        "new adversary": "adversary",
        "fewest nats": "least_nats",
        "collapsed groups": "collapsed",
        "diverged": "diverged",
    }
    return figures.summary(("where", "arm"), columns)(rows)


def frontier(rows: Rows, where: Where = Where.DRIFT) -> Points:
    """Accuracy against the true effect, one point per seed."""
    return figures.points(
        x="true",
        y="accuracy",
        by="arm",
        title=f"Later domains, {where} (one point per seed)",
        x_label="true counterfactual effect (points)",
        y_label="accuracy (%)",
    )([row for row in pick(rows, where=str(where)) if "true" in row])


def gentle(rows: Rows) -> Points:
    """The same where the drift is gentle."""
    return frontier(rows, Where.GENTLE)


def eyes(rows: Rows) -> Bars:
    """The effect in truth and in the model's own eyes, by weights."""
    mine = pick(rows, where=str(Where.DRIFT))
    found = {}
    for (arm,) in distinct([row for row in mine if "own" in row], "arm"):
        found[f"{arm}: true"] = stats.mean(column(mine, "true", arm=arm))
        found[f"{arm}: own"] = stats.mean(column(mine, "own", arm=arm))
    return figures.draw_bars(found, title=f"Counterfactual effect, {Where.DRIFT}", label="points")


study = Study(
    name="counterfactual_fairness",
    system="39",
    differs=(
        "The paper uses FairCircle, Adult and Chicago Crime, prepared in ways that are not public; "
        "here 13 domains of 600 people in worlds of our own (a plane that turns by 10° or 3°, a "
        "circle) have known counterfactuals, and COMPAS stands for real data, with 6 seeds. "
        "Effects on COMPAS are the model's own or additive ones: the truth is not known. The "
        "weight of the adversary was chosen on two other seeds. All seeds train as one stack."
    ),
    not_tested=(
        "Gains over the paper's baselines beside ERM (sequential and fair autoencoders, "
        "adversarial debiasing), on its data."
    ),
    source=Source(
        key="lin2023pursuing",
        title="Pursuing Counterfactual Fairness via Sequential Autoencoder Across Domains",
        authors=(
            "Lin, Yujie",
            "Zhao, Chen",
            "Shao, Minglai",
            "Meng, Baoluo",
            "Zhao, Xujiang",
            "Chen, Haifeng",
        ),
        year=2023,
        arxiv="2309.13005",
    ),
    scales={
        Scale.SMOKE: Config(
            settings=SMALL,
            penalties=(NONE, ONLY_FAIRNESS, MUCH_FAIRNESS, BOTH, JUDGED),
            width=8,
            method=CDSAE(width=8, hidden=2),
            budget=Budget(steps=6, batch_size=8, lr=1e-2),
            probe=Budget(steps=6, batch_size=64, lr=1e-2),
            seeds=1,
        ),
        Scale.LAPTOP: Config(),
        Scale.PAPER: Config(
            settings=settings(fitted=15, future=3, n=2_000, n_evaluate=1_500),
            method=CDSAE(width=64, hidden=16, codes=4),
            width=64,
            budget=Budget(steps=10_000, batch_size=64, lr=1e-3),
            probe=Budget(steps=2_000, batch_size=256, lr=3e-3),
            seeds=20,
        ),
    },
    cells=cells,
    run=run,
    claims=CLAIMS,
    figures=(frontier, gentle, eyes),
    table=table,
)
