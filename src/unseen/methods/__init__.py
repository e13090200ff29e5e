"""Ways to train, a file each: `from unseen.methods import SAM` finds the file that defines the
class.
"""

from unseen.lazy import exports

__getattr__, __dir__ = exports(__name__, __file__)
