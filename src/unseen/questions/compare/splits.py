"""Which splits of a task a comparison reads: what is reported, what stands for known sites, what
may be left out.
"""

from unseen.errors import InvalidData
from unseen.task import Split, Task, Use
from unseen.tasks.domains import ORACLE, UNSEEN


def evaluated_splits(task: Task) -> dict[str, str]:
    """The splits that are reported, by the name of their site: `unseen`, else what lies at unseen
    sites, else all.
    """
    if UNSEEN in task.of(Use.EVALUATE):
        at = task.splits[UNSEEN].at
        return {UNSEEN if at is None else str(at): UNSEEN}
    found = {
        name: split
        for name, split in (task.unseen or task.of(Use.EVALUATE)).items()
        if name != ORACLE
    }
    if not found:
        raise InvalidData(
            f"Task `{task.name}` has no split to evaluate on.",
            why="a comparison needs examples that no method has seen.",
            fix="add a split with use=Use.EVALUATE.",
        )
    sites = [str(split.at) for split in found.values()]
    unique = len(set(sites)) == len(sites) and None not in [split.at for split in found.values()]
    return dict(zip(sites if unique else found, found, strict=True))


def known_splits(task: Task) -> dict[str, Split]:
    """Evaluation splits at positions that are fitted: what in-distribution accuracy is read
    from.
    """
    new = {*task.unseen, *evaluated_splits(task).values(), ORACLE}
    return {name: split for name, split in task.of(Use.EVALUATE).items() if name not in new}


def training_domains(task: Task) -> list[str]:
    """The positions of the TRAIN splits, where there are several: what leave-one-domain-out
    validation leaves out.
    """
    found = dict.fromkeys(
        str(split.at) for split in task.of(Use.TRAIN).values() if split.at is not None
    )
    return list(found) if len(found) > 1 else []
