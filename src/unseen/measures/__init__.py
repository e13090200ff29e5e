"""Numbers with their uncertainty, a file each: `from unseen.measures import Coherence`."""

from unseen.lazy import exports

__getattr__, __dir__ = exports(__name__, __file__)
