"""`unseen cite`: BibTeX of the papers behind studies, and of Unseen itself."""

import json
from collections.abc import Sequence

from unseen import citation
from unseen.cli.arguments import Arguments
from unseen.errors import InvalidConfig
from unseen.runs import catalog

ITSELF = "unseen"


def parser() -> Arguments:
    p = Arguments(
        "unseen cite",
        "BibTeX of the papers behind studies; without names, of all. `unseen cite unseen` cites "
        "Unseen itself.",
    )
    p.add_argument("names", nargs="*", help="studies (`unseen list studies`), or unseen")
    p.add_argument("--apa", action="store_true", help="of Unseen itself: a line in APA style")
    return p


def main(argv: Sequence[str]) -> int:
    options = parser().parse_args(argv)
    if options.apa and options.names != [ITSELF]:
        raise InvalidConfig(
            "--apa was given for papers.",
            why="only Unseen itself is written in APA style; papers are BibTeX.",
            fix="unseen cite unseen --apa, or leave --apa out.",
        )
    names = [name for name in options.names if name != ITSELF]
    asked = names if options.names else catalog.names()
    sources = {name: catalog.load(name).source for name in asked}
    if options.json:
        entries = {name: {**vars(s), "bibtex": s.bibtex} for name, s in sources.items()}
        if ITSELF in options.names:
            entries[ITSELF] = {"bibtex": citation.bibtex(), "apa": citation.apa()}
        print(json.dumps(entries, indent=1))
        return 0
    texts = list({source.key: source.bibtex for source in sources.values()}.values())
    if ITSELF in options.names:
        texts.append(citation.apa() if options.apa else citation.bibtex())
    print("\n\n".join(texts))
    return 0
