"""Unseen: will it work on data it has not seen, why, and what can I change?"""

__version__ = "0.1.0"
