"""`unseen cite`: BibTeX of the papers behind studies."""

import json
from collections.abc import Sequence

from unseen.cli.arguments import Arguments
from unseen.runs import catalog


def main(argv: Sequence[str]) -> int:
    p = Arguments("unseen cite", "BibTeX of the papers behind studies; without names, of all.")
    p.add_argument("names", nargs="*", help="studies (`unseen list studies`)")
    options = p.parse_args(argv)
    sources = {name: catalog.load(name).source for name in options.names or catalog.names()}
    if options.json:
        print(
            json.dumps(
                {name: {**vars(s), "bibtex": s.bibtex} for name, s in sources.items()}, indent=1
            )
        )
    else:
        print("\n\n".join({source.key: source.bibtex for source in sources.values()}.values()))
    return 0
