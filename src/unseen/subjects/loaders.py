"""A network with loaders of its own: training examples, and those of each site where it is
evaluated.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from unseen.engine.batches import gather, length, subset
from unseen.engine.parameters import trainable
from unseen.errors import InvalidConfig, InvalidData, MissingFile
from unseen.lab import Lab
from unseen.objectives import binary, classify, correct, negative_absolute_error, regress
from unseen.subjects.examples import Shown
from unseen.subjects.networks import budget_for_rows
from unseen.subjects.subject import Subject
from unseen.subjects.user_data import examples_by_name
from unseen.task import Axis, Batch, Objective, Split, Task, Use

Data: TypeAlias = DataLoader[Any] | Dataset[Any] | Sequence[Tensor]
"""A loader, a dataset of pairs or dictionaries, or tensors of inputs and targets."""
Network: TypeAlias = nn.Module | Callable[[], nn.Module]
"""A module, or a function that makes a fresh one."""
Weights: TypeAlias = nn.Module | Mapping[str, Tensor] | str | Path
"""A trained module, its state dict, or the file of one."""
Loss: TypeAlias = nn.Module | Callable[..., Tensor] | Objective
"""Of outputs and targets, as torch's; or an objective."""
KNOWN_SITE = "training site"
KNOWN_SHARE = 0.2
"""Of the training examples, set apart as new examples of the known site where none are given."""
FEWEST = 20


def subject_of_loaders(
    model: Network,
    *,
    train: Data,
    test: Mapping[str, Data],
    known: Data | None = None,
    loss: Loss | None = None,
    trained: Weights | None = None,
    classes: Sequence[str] = (),
    train_site: str = KNOWN_SITE,
    name: str = "",
) -> Subject:
    """The subject that `Subject.from_loaders` describes."""
    if not test:
        raise InvalidData(
            "No site to evaluate on was given.",
            why="the question is how the model holds there.",
            fix='test={"Geneva": loader, "Basel": loader}.',
        )
    new_model, given = fresh_and_trained(model, trained)
    fitted = _examples(train, "train")
    decisions = list[str]()
    splits = dict[str, Split]()
    held = None if known is None else _examples(known, "known")
    if held is None and given is None:
        fitted, held, decisions = _set_apart(fitted)
    splits["train"] = Split(fitted, Use.TRAIN, at=train_site)
    if held is not None:
        splits["known"] = Split(held, Use.EVALUATE, at=train_site)
    for site, data in test.items():
        splits[str(site)] = Split(_examples(data, str(site)), Use.EVALUATE, at=str(site))
    task = Task(
        name=name or (type(given).__name__ if given is not None else "own data"),
        axis=Axis.SITE,
        splits=splits,
        objective=objective_of(loss, fitted),
    )
    return Subject(
        task=task,
        model=new_model,
        trained=given,
        classes=[str(one) for one in classes],
        show=_pictures(splits),
        budget=budget_for_rows(length(fitted) or 10_000),
        decisions=decisions,
    )


def fresh_and_trained(
    model: Network, trained: Weights | None
) -> tuple[Callable[[], nn.Module], nn.Module | None]:
    """A function that makes an untrained model, and the trained one if there is one: a module that
    is given alone is trained.
    """
    if isinstance(model, nn.Module):
        kept = model

        def new_model() -> nn.Module:
            return reset(kept)

        return new_model, model if trained is None else _with_weights(copy.deepcopy(model), trained)
    if trained is None:
        return model, None
    return model, trained if isinstance(trained, nn.Module) else _with_weights(model(), trained)


def _with_weights(model: nn.Module, weights: Weights) -> nn.Module:
    """The model with the weights of a state dict, which have to fit exactly."""
    if isinstance(weights, nn.Module):
        return weights
    state = weights if isinstance(weights, Mapping) else _load(Path(weights))
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        raise InvalidData(
            f"The trained weights do not fit {type(model).__name__}.",
            why=" ".join(str(error).split())[:300],
            fix="make the model as it was when it was trained; of a checkpoint give its state "
            'dict: trained=checkpoint["model"].',
        ) from error
    return model


def _load(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise MissingFile(
            f"There is no file `{path}`.", why="weights are read from it.", fix="check the path."
        )
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    # weights_only: a checkpoint is no place for code
    found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, Mapping):
        raise InvalidData(
            f"`{path}` holds a {type(found).__name__}.",
            why="weights are a state dict: tensors by name.",
            fix="torch.save(model.state_dict(), path).",
        )
    return found


def reset(model: nn.Module) -> nn.Module:
    """A copy with weights drawn anew by each layer's own `reset_parameters`."""
    model = copy.deepcopy(model)
    drawn = set[int]()
    for module in model.modules():
        for name in ("reset_parameters", "_reset_parameters"):  # attention has the latter
            if callable(again := getattr(module, name, None)):
                again()
                drawn |= {id(p) for p in module.parameters(recurse=False)}
    left = [name for name, p in trainable(model).items() if id(p) not in drawn]
    if left:
        raise InvalidData(
            f"`{left[0]}` of {type(model).__name__} cannot be drawn anew.",
            why="folds and remedies start from an untrained model, and the module has no "
            "`reset_parameters` for it.",
            fix="give a function that makes a fresh model, and the trained one as trained=…: "
            "Subject.from_loaders(make_model, trained=model, …).",
        )
    return model


def _examples(data: Data, split: str) -> Dataset[Any]:
    """The examples by name; a tuple of tensors stands for inputs and targets."""
    if isinstance(data, Sequence):
        tensors = [one for one in data if isinstance(one, Tensor)]
        if len(tensors) != len(data):
            raise InvalidData(
                f"Split `{split}` is a {type(data).__name__}.",
                why="examples come from a DataLoader, a Dataset, or tensors of inputs and targets.",
                fix="give a torch.utils.data.DataLoader.",
            )
        data = TensorDataset(*tensors)
    return examples_by_name(data, split)


def _set_apart(data: Dataset[Any]) -> tuple[Dataset[Any], Dataset[Any] | None, list[str]]:
    """A fifth of the training examples as new ones of the known site; none of a stream."""
    n = length(data)
    if n is None or n < FEWEST:
        return data, None, []
    order = torch.randperm(n, generator=Lab().child("known").generator())
    cut = int(n * KNOWN_SHARE)
    held, rest = order[:cut].sort().values, order[cut:].sort().values
    said = [
        f"{cut:,} of {n:,} training examples, drawn at random, are not trained on: they are new "
        "examples of the known site."
    ]
    return subset(data, rest), subset(data, held), said


def objective_of(loss: Loss | None, data: Dataset[Any]) -> Objective:
    """What is trained and evaluated: by the loss, or by the type of the targets."""
    if isinstance(loss, Objective):
        return loss
    y = _first(data)["y"]
    is_class = not y.is_floating_point()
    match loss:
        case None:
            return classify if is_class else regress
        case nn.CrossEntropyLoss() if _is_plain(loss):
            return classify
        case nn.BCEWithLogitsLoss() if loss.weight is None and loss.pos_weight is None:
            return binary
        case nn.MSELoss():
            return regress
    score = correct if is_class else negative_absolute_error
    return Objective(PerExampleLoss(_by_example(loss)), score)


def _is_plain(loss: nn.CrossEntropyLoss) -> bool:
    return loss.weight is None and loss.label_smoothing == 0


def _first(data: Dataset[Any]) -> Batch:
    n = length(data)
    return next(iter(data)) if n is None else gather(data, torch.tensor([0]))


def _by_example(loss: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of each example instead of their mean."""
    if isinstance(loss, nn.Module) and hasattr(loss, "reduction"):
        loss = copy.deepcopy(loss)
        loss.reduction = "none"
        return loss
    if getattr(loss, "__module__", "") == "torch.nn.functional":

        def loss_of_each(outputs: Tensor, targets: Tensor) -> Tensor:
            return loss(outputs, targets, reduction="none")

        return loss_of_each
    raise InvalidConfig(
        f"The loss {getattr(loss, '__name__', type(loss).__name__)} gives one number per batch.",
        why="examples are compared one by one, and only torch's own losses can be asked for that.",
        fix="give a module with `reduction`, or unseen.Objective(loss, score) of functions of "
        "(model, batch) that return a number per example.",
    )


class PerExampleLoss:
    """A loss of outputs and targets as a function of model and batch."""

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.loss = loss

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        outputs, targets = model(batch["x"]), batch["y"]
        if outputs.dim() == targets.dim() + 1 and targets.is_floating_point():
            outputs = outputs.squeeze(-1)
        found = self.loss(outputs, targets)
        return found.flatten(1).mean(1) if found.dim() > 1 else found


def _pictures(splits: Mapping[str, Split]) -> Callable[[str, int], Shown] | None:
    """Images as grey values; None where the inputs are no images."""
    first = _first(splits["train"].data)
    if "x" not in first or first["x"].dim() != 4 or not first["x"].is_floating_point():
        return None

    def show(split: str, index: int) -> Shown:
        grey = gather(splits[split].data, torch.tensor([index]))["x"][0].float().mean(0)
        return (grey - grey.min()) / (grey.max() - grey.min()).clamp_min(1e-12)

    return show
