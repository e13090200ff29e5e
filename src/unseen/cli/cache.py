"""`unseen cache`: what the home holds, and what may go."""

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from unseen.api.cache import list_cache, prune_cache
from unseen.cli.arguments import Arguments
from unseen.runs.inventory import Inventory, StoredItem, forgone, total_seconds
from unseen.runs.pruning import Pruning, check_kinds
from unseen.runs.sizes import format_age, format_size, parse_age, parse_size

STORE, PRUNE = "store", "what goes"


def parser() -> Arguments:
    p = Arguments(
        "unseen cache",
        "What the home holds, by kind, with size and age; --prune makes it smaller.",
        "unseen cache                                          the list\n"
        "unseen cache --prune --kind factors --older-than 30d  what would go, and what that costs\n"
        "unseen cache --prune --kind factors --limit 5GB --yes removes the oldest beyond 5 GB\n\n"
        "What a running process writes stays, and links are not followed.",
        groups=(STORE, PRUNE),
    )
    p.option(
        STORE,
        "--home",
        type=Path,
        help="the home (default: UNSEEN_HOME or the user's cache)",
    )
    p.repeatable(STORE, "--kind", "only this kind: rows, factors, answers, audits, …")
    p.option(PRUNE, "--prune", action="store_true", help="say what would go, and what that costs")
    p.option(
        PRUNE,
        "--older-than",
        default="0s",
        metavar="AGE",
        help="only what was written longer ago than this: 30d, 12h",
    )
    p.option(PRUNE, "--limit", metavar="SIZE", help="only the oldest, until these kinds take 10GB")
    p.option(PRUNE, "--yes", action="store_true", help="remove it (without: a dry run)")
    return p


def main(argv: Sequence[str]) -> int:
    """Lists, or removes."""
    p = parser()
    options = p.parse_args(argv)
    if not options.prune:
        if options.yes or options.limit is not None or options.older_than != "0s":
            p.error("--yes, --limit and --older-than belong to --prune")
        return _list(list_cache(options.home), options.kind, options.json)
    pruning = prune_cache(
        options.kind,
        older_than=parse_age(options.older_than),
        limit=None if options.limit is None else parse_size(options.limit),
        dry_run=not options.yes,
        home=options.home,
    )
    if options.json:
        print(json.dumps(_as_plain(pruning), ensure_ascii=False, indent=1))
    else:
        _print_pruning(pruning)
    return 2 if pruning.errors else 0


def _list(stored: Inventory, kinds: Sequence[str], as_json: bool) -> int:
    check_kinds(stored, kinds)
    found = {kind: items for kind, items in stored.kinds.items() if not kinds or kind in kinds}
    if as_json:
        print(
            json.dumps(
                {
                    "home": str(stored.home),
                    "size": stored.size,
                    "foreign": stored.foreign,
                    "kinds": {kind: _summary(items) for kind, items in found.items()},
                    "items": [_item(one) for items in found.values() for one in items],
                },
                ensure_ascii=False,
                indent=1,
            )
        )
        return 0
    print(f"{stored.home}: {format_size(stored.size)}")
    for kind, items in found.items():
        ages = sorted(_age(one) for one in items)
        age = f"{format_age(ages[0])} to {format_age(ages[-1])} old"
        print(
            f"  {kind:<13} {format_size(sum(one.size for one in items)):>8} in "
            f"{_count(items)}, {age}; {_cost(items)}"
        )
        if kinds:
            for one in items:
                print(
                    f"    {format_size(one.size):>8}  {format_age(_age(one)):>6}  {one.about}  "
                    f"{one.path.relative_to(stored.home)}"
                )
    if stored.foreign:
        print(f"  {format_size(stored.foreign)} beside that are no stored things; never removed")
    return 0


def _print_pruning(pruning: Pruning) -> None:
    verb = "would go" if pruning.is_dry else "removed"
    print(f"{_count(pruning.items)}, {format_size(pruning.size)} {verb}")
    for kind in dict.fromkeys(one.kind for one in pruning.items):
        items = [one for one in pruning.items if one.kind == kind]
        size = format_size(sum(one.size for one in items))
        print(f"  {kind}: {size} in {_count(items)}; {_cost(items)}")
        print(f"    {forgone(kind)}")
    if pruning.busy:
        print(
            f"{_count(pruning.busy)} stay: a running process writes there, or "
            "wrote within the last hour"
        )
    for error in pruning.errors:
        print(f"not removed: {error}")
    if pruning.is_dry and pruning.items:
        print("nothing was removed: add --yes")


def _count(items: Sequence[StoredItem]) -> str:
    return f"{len(items)} item{'' if len(items) == 1 else 's'}"


def _age(one: StoredItem) -> float:
    return max(0.0, time.time() - one.changed)


def _cost(items: Iterable[StoredItem]) -> str:
    """What computing it again takes, as far as that is known."""
    items = list(items)
    seconds, unknown = total_seconds(items)
    if unknown == len(items):
        return "seconds not recorded"
    rest = f", {unknown} not recorded" if unknown else ""
    return f"took {format_age(seconds)} of a CPU{rest}"


def _summary(items: Sequence[StoredItem]) -> dict[str, Any]:
    seconds, unknown = total_seconds(items)
    return {
        "items": len(items),
        "size": sum(one.size for one in items),
        "seconds": seconds,
        "seconds_not_recorded": unknown,
        "if_removed": forgone(items[0].kind),
    }


def _item(one: StoredItem) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "about": one.about,
        "path": str(one.path),
        "size": one.size,
        "age": round(_age(one), 1),
        "seconds": one.seconds,
    }


def _as_plain(pruning: Pruning) -> dict[str, Any]:
    kinds = dict.fromkeys(one.kind for one in pruning.items)
    return {
        "dry_run": pruning.is_dry,
        "size": pruning.size,
        "kinds": {kind: _summary([x for x in pruning.items if x.kind == kind]) for kind in kinds},
        "items": [_item(one) for one in pruning.items],
        "busy": [_item(one) for one in pruning.busy],
        "errors": list(pruning.errors),
    }
