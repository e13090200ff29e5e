"""Real reports for the documentation site: every question asked of the embedded heart-disease data.

    python docs/gallery.py [FOLDER]

Writes one HTML file per question and an index into FOLDER (docs/gallery). Nothing is downloaded.
"""

import sys
from pathlib import Path

import unseen
from unseen.tasks.hospitals import write_heart_csv


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table = str(write_heart_csv(folder / "heart.csv"))
    columns = {"target": "disease", "site": "hospital"}
    reports = {
        "audit": lambda path: unseen.audit(
            table, **columns, groups=("sex", "age:decade"), report=path
        ),
        "compare": lambda path: unseen.compare(
            table, ("erm", "sam", "group_dro"), **columns, draws=2, report=path
        ),
        "explain": lambda path: unseen.explain(table, **columns, rows=(3, 17, 200), report=path),
        "influence": lambda path: unseen.influence(table, **columns, report=path),
    }
    lines = [
        "# Gallery of reports",
        "",
        "Made from the embedded data by `make gallery`; each is one file.",
        "",
    ]
    for name, ask in reports.items():
        answer = ask(folder / f"{name}.html")
        lead = " ".join(answer.document.lead.split())
        lines.append(f"* [`unseen {name}`]({name}.html): {lead}")
        print(lines[-1])
    (folder / "index.md").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "gallery"))
