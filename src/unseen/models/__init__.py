"""Networks and wrappers, a file each: `from unseen.models import cnn, Transformer`."""

from unseen.lazy import exports

__getattr__, __dir__ = exports(__name__, __file__, functions=True)
