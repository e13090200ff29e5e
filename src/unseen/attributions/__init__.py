"""Causes of a behaviour, a file each: `from unseen.attributions import Influence`."""

from unseen.lazy import exports

__getattr__, __dir__ = exports(__name__, __file__)
