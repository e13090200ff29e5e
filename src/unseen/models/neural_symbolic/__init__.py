"""A machine that answers by a tree of symbols with readable programs."""

from unseen.models.neural_symbolic.abduction import Abducer, Fix
from unseen.models.neural_symbolic.machine import (
    Explanation,
    Learning,
    NeuralSymbolicRecursiveMachine,
    Report,
)
from unseen.models.neural_symbolic.parser import TransitionParser, Tree, oracle_actions
from unseen.models.neural_symbolic.programs import Program, ProgramInducer
from unseen.models.neural_symbolic.semantics import Semantics

__all__ = [
    "Abducer",
    "Explanation",
    "Fix",
    "Learning",
    "NeuralSymbolicRecursiveMachine",
    "Program",
    "ProgramInducer",
    "Report",
    "Semantics",
    "TransitionParser",
    "Tree",
    "oracle_actions",
]
