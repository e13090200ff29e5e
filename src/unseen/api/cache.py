"""What the home holds, and how it becomes smaller."""

from collections.abc import Sequence
from pathlib import Path

from unseen.runs.inventory import Inventory, inventory
from unseen.runs.pruning import Pruning, Selection, prune
from unseen.runs.store import home as default_home


def list_cache(home: str | Path | None = None) -> Inventory:
    """Everything stored, by kind, with size, age and the CPU seconds that it took."""
    return inventory(default_home(home))


def prune_cache(
    kinds: Sequence[str] = (),
    *,
    older_than: float = 0.0,
    limit: int | None = None,
    dry_run: bool = True,
    home: str | Path | None = None,
) -> Pruning:
    """Removes stored things of these kinds (empty: all) that were written more than `older_than`
    seconds ago, with a `limit` only the oldest until the kinds take no more bytes.

    A dry run says what would go. What a running process writes stays, and links are not followed.
    """
    selection = Selection(kinds=kinds, older_than=older_than, limit=limit)
    return prune(default_home(home), selection, is_dry=dry_run)
