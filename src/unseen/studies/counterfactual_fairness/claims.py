"""What is claimed of the rows: effects as shares, accuracies as paired differences, adversaries
trained anew.
"""

from unseen import stats
from unseen.methods.cdsae import Adversary
from unseen.reading import Reading
from unseen.studies.counterfactual_fairness.arms import (
    BOTH,
    JUDGED,
    MUCH_FAIRNESS,
    NONE,
    ONLY_FAIRNESS,
    Arm,
    Penalty,
    Where,
)
from unseen.study import Claim, Effect, Rows, average, column, gap, pick
from unseen.study.effects import exponential, highest, ratio, restrict


def against(
    arm: Arm | Penalty, other: Arm | Penalty, name: str, where: Where = Where.DRIFT
) -> Effect:
    """Paired difference over seeds in one world."""
    one, two = (
        {"arm": each.name() if isinstance(each, Penalty) else str(each)} for each in (arm, other)
    )
    return lambda rows: gap(name, one, two)(pick(rows, where=str(where)))


def share(
    arm: Arm | Penalty, other: Arm | Penalty, name: str = "log_true", where: Where = Where.DRIFT
) -> Effect:
    """Ratio of geometric means over seeds."""
    return exponential(against(arm, other, name, where))


def share_of_both(name: str = "log_true", where: Where = Where.DRIFT) -> Effect:
    """The judged CDSAE's effect as a share of ERM's, with a and without: the larger is shown."""
    return highest(*(share(JUDGED, arm, name, where) for arm in (Arm.TOLD, Arm.HIDDEN)))


def model_based_share(rows: Rows) -> Reading:
    """The effect in the judged model's own eyes as a share of the true one."""
    mine = pick(rows, where=str(Where.DRIFT), arm=JUDGED.name())
    difference = stats.difference(column(mine, "log_own"), column(mine, "log_true"))
    return exponential(lambda _: difference)(mine)


def typical(name: str, arm: Penalty, where: Where = Where.DRIFT) -> Effect:
    return average(name, {"where": str(where), "arm": arm.name()})


TWO_THIRDS = 2 / 3

CLAIMS = (
    Claim(
        says="On later domains the true counterfactual effect is at most two thirds of ERM's, with "
        "or without a (plane).",
        effect=share_of_both(),
        below=TWO_THIRDS,
    ),
    Claim(
        says="That costs at most 2 points of accuracy against ERM with a (plane).",
        effect=against(JUDGED, Arm.TOLD, "accuracy"),
        above=-2.0,
    ),
    Claim(
        says="Later domains are even classified better than by ERM (plane).",
        effect=against(JUDGED, Arm.TOLD, "accuracy"),
        above=1.0,
    ),
    Claim(
        says="What accuracy is lost is lost by the autoencoder, not by fairness: within a point of "
        "λ = 0 (plane).",
        effect=against(JUDGED, NONE, "accuracy"),
        above=-1.0,
    ),
    Claim(
        says="At most two thirds of ERM's effect where the drift is gentle.",
        effect=share_of_both(where=Where.GENTLE),
        below=TWO_THIRDS,
    ),
    Claim(
        says="At most 2 points of accuracy are lost where the drift is gentle.",
        effect=against(JUDGED, Arm.TOLD, "accuracy", Where.GENTLE),
        above=-2.0,
    ),
    Claim(
        says="At most two thirds of ERM's effect on the circle.",
        effect=share_of_both(where=Where.CIRCLE),
        below=TWO_THIRDS,
    ),
    Claim(
        says="At most 2 points of accuracy are lost on the circle.",
        effect=against(JUDGED, Arm.TOLD, "accuracy", Where.CIRCLE),
        above=-2.0,
    ),
    Claim(
        says="To leave a out of the inputs of ERM makes the effect larger (plane).",
        effect=against(Arm.HIDDEN, Arm.TOLD, "true"),
        above=1.0,
    ),
    Claim(
        says="The fairness loss alone, on the model's own counterfactuals, leaves 90 % of the "
        "autoencoder's true effect.",
        effect=share(ONLY_FAIRNESS, NONE),
        above=0.9,
    ),
    Claim(
        says="Weighted enough, it drives the effect in the model's own eyes below a point.",
        effect=typical("own", MUCH_FAIRNESS),
        below=1.0,
    ),
    Claim(
        says="A model sees less than half of its own true effect: judge it by other "
        "counterfactuals than its own.",
        effect=model_based_share,
        below=0.5,
    ),
    Claim(
        says="The adversary must see all codes that the label is read from: then the effect is at "
        "most 85 % of that with "
        "an adversary on uninfluenced codes.",
        effect=restrict(
            ratio("log_true", {"arm": BOTH.name()}, {"arm": BOTH.name(Adversary.UNINFLUENCED)}),
            where=str(Where.DRIFT),
        ),
        below=0.85,
    ),
    Claim(
        says="An adversary trained anew on codes drawn as in training tells the group in at most "
        "60 % (half are of each).",
        effect=typical("adversary_sampled", JUDGED),
        below=60.0,
    ),
    Claim(
        says="Nor does one on the mean codes, from which labels are read: at most 60 %.",
        effect=typical("adversary", JUDGED),
        below=60.0,
    ),
    Claim(
        says="COMPAS, model-based: at most two thirds of ERM's effect, by additive "
        "counterfactuals.",
        effect=share_of_both("log_outside", Where.REAL),
        below=TWO_THIRDS,
    ),
    Claim(
        says="COMPAS: at most 2 points of accuracy are lost.",
        effect=against(JUDGED, Arm.TOLD, "accuracy", Where.REAL),
        above=-2.0,
    ),
)
