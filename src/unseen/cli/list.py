"""`unseen list`: what the folders hold, and what the store holds. Reads sources, imports no
plug.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from unseen.cli.arguments import Arguments
from unseen.runs import catalog
from unseen.runs.catalog import Entry

WIDTH = 100


def parser() -> Arguments:
    p = Arguments(
        "unseen list", "What there is, one line each; `stored` lists the results that are kept."
    )
    p.add_argument("kind", nargs="?", choices=(*catalog.KINDS, "stored"), help="one folder only")
    p.add_argument("--names", action="store_true", help="names only, for scripts")
    p.add_argument("--home", type=Path, help="where results are kept (for `stored`)")
    return p


def main(argv: Sequence[str]) -> int:
    options = parser().parse_args(argv)
    if options.kind == "stored":
        return _print_stored(options.home, options.names, options.json)
    found = {
        kind: catalog.entries(kind) for kind in ([options.kind] if options.kind else catalog.KINDS)
    }
    if options.json:
        print(
            json.dumps(
                {kind: list(map(asdict, some)) for kind, some in found.items()},
                ensure_ascii=False,
                indent=1,
            )
        )
    elif options.names:
        print(
            "\n".join(
                name
                for kind, some in found.items()
                for entry in some
                for name in _names(kind, entry)
            )
        )
    else:
        print("\n\n".join(_listing(kind, some) for kind, some in found.items()))
    return 0


def _names(kind: str, entry: Entry) -> Sequence[str]:
    """What scripts type: of methods, what `unseen compare --method` takes."""
    return entry.compared_as if kind == "methods" else [entry.name]


def _listing(kind: str, some: Sequence[Entry]) -> str:
    """A heading and a line per entry, cut to the width; below a method the names that `compare`
    takes.
    """
    width = max((len(entry.name) for entry in some), default=0)
    lines = [f"{kind} ({len(some)})"]
    for entry in some:
        line = f"  {entry.system + ' ' if entry.system else ''}{entry.name:<{width}}  {entry.says}"
        lines.append(line if len(line) <= WIDTH else line[: WIDTH - 1].rstrip() + "…")
        if entry.compared_as:
            lines.append(f"  {'':<{width}}  --method {', '.join(entry.compared_as)}")
    return "\n".join(lines)


def _print_stored(home: Path | None, names: bool, as_json: bool) -> int:
    from unseen.runs.index import summary  # sqlite, for this listing only

    found = summary(home)
    if as_json:
        print(json.dumps({"stored": found}, indent=1))
    elif names:
        print("\n".join(line["study"] for line in found))
    elif not found:
        print("no results are stored yet: unseen run NAME --scale smoke")
    else:
        width = max(len(line["study"]) for line in found)
        for line in found:
            size = f"{line['cells']} cells, {line['rows']} rows, {line['seconds']:.0f} CPU s"
            print(f"{line['study']:<{width}}  {size}, last {line['finished']}")
    return 0
