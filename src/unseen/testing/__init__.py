"""The contract battery: what every task, method, measure, attribution and study must satisfy.
Public, for own plugs too.

    check_task(XorClusters(n=60))                  raises Broken with what, why and fix, or returns
    None check_method(SAM(), small_task())              a method that needs more than `x` and `y`
    brings its own task check_measure(Coherence())                     subject: see below
    check_attribution(GradientSimilarity())
    check_study(study)

**Examples.** A plug file ends with `example()`. It returns the plug alone, or a pair with what the
plug is to be tried on, when the defaults do not suit:

| room         | alone                                    | pair                                   |
|--------------|------------------------------------------|----------------------------------------|
| tasks        | the spec; `x`, `y`: a small model        | `(spec, model)`: function task → model |
| methods      | tried on `small_task()` with a small MLP | `(method, trained)`: its task          |
| measures     | `__call__` decides: `Trained` or `Task`  | `(measure, subject)`                   |
| attributions | tried on `small_subject()`               | `(attribution, trained)`               |

A task whose evaluation splits repeat training examples on purpose (recall of facts) names them in a
class variable `recalls`. A column `index` is the number of the source example: two different people
may agree in every column, so 1 % of an evaluation split may look like training examples if their
numbers differ. A measure declares what leaves its value unchanged in a class variable
`invariances`: "order" (of the examples), "repetition" (every example twice), "loss scale" (the loss
  times 3).
"""

from unseen.testing.attributions import check_attribution
from unseen.testing.contract import ContractViolation
from unseen.testing.measures import check_measure
from unseen.testing.methods import check_method
from unseen.testing.stand_ins import first, small_model, small_subject, small_task
from unseen.testing.studies import check_study
from unseen.testing.tasks import check_task

__all__ = [
    "ContractViolation",
    "check_attribution",
    "check_measure",
    "check_method",
    "check_study",
    "check_task",
    "first",
    "small_model",
    "small_subject",
    "small_task",
]
