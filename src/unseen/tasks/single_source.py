"""One domain is fitted, all others are evaluated: single-source generalization from any task with
domains.
"""

from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from unseen.engine.batches import Columns
from unseen.errors import InvalidData, UnknownName
from unseen.lab import Lab
from unseen.task import Split, Task
from unseen.tasks.domains import ORACLE, UNSEEN, Domains, DomainSpec, shifting_clusters


@dataclass(frozen=True)
class SingleSource:
    """The task of `spec` with one training domain. Splits: `train:S`, `select:S`, `seen:S` of the
    source S, and per other domain D `unseen:D` and `oracle:D` (EVALUATE).

    The rows are those of `spec` in the same lab. Tables are refused: how their features are encoded
    depends on the domain that is left out.
    """

    spec: DomainSpec
    source: str | None = None
    """None: the first domain."""

    def build(self, lab: Lab) -> Task:
        names = self.spec.domains()
        source = names[0] if self.source is None else self.source
        if source not in names:
            raise UnknownName.near("domain", source, names)
        own: dict[str, Split] = {}
        judged: dict[str, Split] = {}
        for other in names:
            if other == source:
                continue
            task = cast(DomainSpec, replace(cast(Any, self.spec), held_out=other)).build(lab)
            found = {name: split for name, split in task.splits.items() if split.at == source}
            own = own or found
            _refuse_other_features(own, found, source)
            judged |= {
                f"{kind}:{other}": task.splits[kind]
                for kind in (UNSEEN, ORACLE)
                if kind in task.splits
            }
        base = task.name.rpartition(" · ")[0] or task.name
        return replace(task, name=f"{base} · from {source}", splits={**own, **judged})


def _refuse_other_features(own: dict[str, Split], found: dict[str, Split], source: str) -> None:
    for name, split in own.items():
        one, other = split.data, found[name].data
        if isinstance(one, Columns) and isinstance(other, Columns):
            x, again = one.columns["x"], other.columns["x"]
            if x.shape != again.shape or not torch.equal(x, again):
                raise InvalidData(
                    f"The features of `{source}` depend on which domain is left out.",
                    why="what is evaluated in the other domains would not be the same input.",
                    fix="for a table, leave out sites one by one: TableDomains(table, held_out=…).",
                )


def example() -> SingleSource:
    return SingleSource(Domains(shifting_clusters), "middle")
