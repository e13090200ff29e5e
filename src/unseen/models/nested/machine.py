"""Machines behind interfaces, and diagrams of machines as machines.

A machine with interface p is a map S y^S → p: in each state it shows outputs and, given inputs,
goes to another state. Outputs that need inputs of the same step are pulled when they are wanted,
each once; states are values, nothing is changed in place.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, TypeAlias, runtime_checkable

from unseen.errors import WiringError
from unseen.models.nested.wiring import OUTER, Interface, Port, Wiring, require_fit, unknown_names

State: TypeAlias = Any
Values: TypeAlias = Mapping[str, Any]
"""What stands at ports, by their names."""
Pull: TypeAlias = Callable[[str], Any]
"""Gives the value at an input."""
Flows: TypeAlias = Mapping[str, Values]
"""What arrived at the inputs of every box."""


@runtime_checkable
class Response(Protocol):
    """What a machine does in one state, for one step."""

    def output(self, port: str, pull: Pull) -> Any:
        """What an output shows; it pulls those inputs that it needs."""

    def update(self, inputs: Values) -> State:
        """The next state."""


@dataclass(frozen=True)
class Machine:
    """An interface, a first state, and what is done in a state."""

    interface: Interface
    start: State
    respond: Callable[[State], Response]
    wirings: Mapping[str, Wiring] = field(default_factory=dict)
    """The diagrams inside, by mode; a fixed one is called ""."""


def step(machine: Machine, state: State, inputs: Values) -> tuple[dict[str, Any], State]:
    """All outputs in this state, and the next one."""
    if lacking := machine.interface.inputs.keys() - inputs.keys():
        raise WiringError(
            f"Nothing arrives at {', '.join(f'`{name}`' for name in sorted(lacking))}.",
            why="every input of a machine has a value in every step.",
            fix=f"give values for {', '.join(machine.interface.inputs)}.",
        )
    response = machine.respond(state)
    outputs = {
        name: response.output(name, inputs.__getitem__) for name in machine.interface.outputs
    }
    return outputs, response.update(inputs)


def run(machine: Machine, stream: Iterable[Values]) -> Iterator[tuple[dict[str, Any], State]]:
    """(outputs, next state) for each of the inputs, from the machine's start."""
    state = machine.start
    for inputs in stream:
        outputs, state = step(machine, state, inputs)
        yield outputs, state


@dataclass(frozen=True)
class _Moore:
    shown: Values
    next_state: Callable[[Values], State]

    def output(self, port: str, pull: Pull) -> Any:
        if port not in self.shown:
            raise WiringError(
                f"The readout shows nothing at the output `{port}`.",
                why="every output of the interface has a value in every state.",
                fix=f"return it beside {', '.join(self.shown) or 'nothing'}.",
            )
        return self.shown[port]

    def update(self, inputs: Values) -> State:
        return self.next_state(inputs)


def moore(
    interface: Interface,
    start: State,
    readout: Callable[[State], Values],
    update: Callable[[State, Values], State],
) -> Machine:
    """A machine whose outputs depend on its state alone."""
    return Machine(
        replace(interface, needs={}),
        start,
        lambda state: _Moore(readout(state), lambda inputs: update(state, inputs)),
    )


@dataclass(frozen=True)
class _Function:
    outputs: Mapping[str, Callable[..., Any]]
    needs: Mapping[str, frozenset[str]]

    def output(self, port: str, pull: Pull) -> Any:
        return self.outputs[port](**{name: pull(name) for name in self.needs[port]})

    def update(self, inputs: Values) -> State:
        return None


def function(interface: Interface, **outputs: Callable[..., Any]) -> Machine:
    """A machine without a state: each output is a function of the inputs that `interface.needs`
    names, by default all.
    """
    if strange := outputs.keys() - interface.outputs.keys():
        raise unknown_names("The function", strange, interface.outputs)
    if lacking := interface.outputs.keys() - outputs.keys():
        raise WiringError(
            f"No function is given for the output {', '.join(f'`{n}`' for n in sorted(lacking))}.",
            why="each output of the interface is a function of its inputs.",
            fix="give one for each, by the output's name.",
        )
    everything = frozenset(interface.inputs)
    needs = {name: interface.needs.get(name, everything) for name in interface.outputs}
    response = _Function(outputs, needs)
    return Machine(replace(interface, needs=needs), None, lambda _: response)


@dataclass(frozen=True)
class Rewiring:
    """A diagram that its own state chooses: `mode(state)` names one of the wirings, and what flows
    in a step updates the state. All wirings have the same boxes and the same outer interface.
    """

    wirings: Mapping[str, Wiring]
    start: State
    mode: Callable[[State], str]
    update: Callable[[State, Flows], State]

    def __post_init__(self) -> None:
        if not self.wirings:
            raise WiringError(
                "There is no wiring to choose from.",
                why="the state names one of the wirings.",
                fix="give at least one, by its mode.",
            )
        first, *others = self.wirings.values()
        for name, other in zip(list(self.wirings)[1:], others, strict=True):
            if (other.boxes, other.outer) != (first.boxes, first.outer):
                raise WiringError(
                    f"Mode `{name}` has other boxes or another outer interface than mode "
                    f"`{next(iter(self.wirings))}`: the wirings do not type-check together.",
                    why="a change of mode moves wires; boxes and what is outside stay.",
                    fix="draw every mode with the same boxes, unwired outputs included.",
                )

    def wiring(self, state: State) -> Wiring:
        """The diagram of this state."""
        mode = self.mode(state)
        if mode not in self.wirings:
            raise WiringError(
                f"The state chooses the mode `{mode}`, which has no wiring.",
                why="a mode names one of the wirings.",
                fix=f"the modes here: {', '.join(self.wirings)}.",
            )
        return self.wirings[mode]

    @cached_property
    def interface(self) -> Interface:
        """Outputs need what they need in some mode."""
        found = [wiring.interface for wiring in self.wirings.values()]
        needs = {
            name: frozenset().union(*(one.needs.get(name, ()) for one in found))
            for name in found[0].outputs
        }
        return replace(found[0], needs=needs)


@dataclass(frozen=True)
class Nest:
    """State of a diagram of machines: the states in its boxes, and that of the wiring."""

    boxes: Mapping[str, State]
    mode: State = None


@dataclass(frozen=True)
class _NestResponse:
    wiring: Wiring
    responses: Mapping[str, Response]
    next_mode: Callable[[Flows], State]
    known: dict[Port, Any] = field(default_factory=dict)
    """Outputs of boxes that were pulled in this step."""

    def output(self, port: str, pull: Pull) -> Any:
        return self.arrive(Port(OUTER, port), pull)

    def arrive(self, sink: Port, pull: Pull) -> Any:
        source = self.wiring.sources[sink]
        if source.box == OUTER:
            return pull(source.name)
        if source not in self.known:
            self.known[source] = self.responses[source.box].output(
                source.name, lambda name: self.arrive(Port(source.box, name), pull)
            )
        return self.known[source]

    def update(self, inputs: Values) -> Nest:
        # all that flows first: a box that passes a gradient on finds its own beside it
        flows = {
            box: {
                name: self.arrive(Port(box, name), inputs.__getitem__)
                for name in interface.inputs
            }
            for box, interface in self.wiring.boxes.items()
        }  # fmt: skip
        states = {box: response.update(flows[box]) for box, response in self.responses.items()}
        return Nest(states, self.next_mode(flows))


def connect(diagram: Wiring | Rewiring, machines: Mapping[str, Machine]) -> Machine:
    """The machine that a diagram makes of the machines in its boxes."""
    if isinstance(diagram, Wiring):
        diagram = Rewiring({"": diagram}, None, lambda _: "", lambda state, _: state)
    wirings = diagram.wirings
    boxes = next(iter(wirings.values())).boxes
    if lacking := [*(boxes.keys() ^ machines.keys())]:
        raise WiringError(
            f"Boxes and machines do not match: {', '.join(sorted(lacking))}.",
            why="every box holds one machine.",
            fix=f"give machines for {', '.join(boxes)}.",
        )
    for name, interface in boxes.items():
        require_fit(name, interface, machines[name].interface)

    def respond(state: Nest) -> Response:
        return _NestResponse(
            diagram.wiring(state.mode),
            {name: machines[name].respond(state.boxes[name]) for name in boxes},
            lambda flows: diagram.update(state.mode, flows),
        )

    start = Nest({name: machines[name].start for name in boxes}, diagram.start)
    return Machine(diagram.interface, start, respond, wirings)
