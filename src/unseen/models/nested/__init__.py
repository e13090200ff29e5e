"""Nested systems as typed values: what a box shows and takes, how boxes are wired, how they learn.

Spivak & Hosgood (2021), "Deep neural networks as nested dynamical systems", arXiv:2111.01297. An
interface is a polynomial functor, a wiring diagram a map of polynomials, a machine a map from its
states; a learner is a machine whose wires also carry gradients back. Diagrams are checked when they
are written: an error names box and port, and nothing has run.
"""

from unseen.lazy import exports

__getattr__, __dir__ = exports(__name__, __file__, functions=True)
