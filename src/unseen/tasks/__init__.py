"""Data whose evaluated splits may differ from the training ones, a file each:
`from unseen.tasks import HeartDisease`.
"""

from unseen.lazy import exports

__getattr__, __dir__ = exports(__name__, __file__)
