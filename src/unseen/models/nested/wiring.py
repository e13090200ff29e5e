"""Interfaces with typed ports, and the diagrams that wire them.

An interface of input ports A and output ports B is the monomial B y^A; a diagram of boxes p₁ … p_k
inside an outer interface q is a map p₁ ⊗ … ⊗ p_k → q, given by one source for each input of a box
and each outer output.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import TypeAlias

from unseen.errors import WiringError
from unseen.models.nested.polynomial import Map, Poly, build_map, monomial, tensor


@dataclass(frozen=True)
class Space:
    """Tensors whose last axes have this shape; the axes before them are a batch."""

    shape: tuple[int, ...]
    dual: bool = False
    """Gradients with respect to such tensors (covectors) instead of the tensors."""

    def __str__(self) -> str:
        kind = "gradients" if self.dual else "values"
        return f"{kind} of shape {'×'.join(map(str, self.shape)) or '()'}"


@dataclass(frozen=True)
class Symbols:
    """One of finitely many values."""

    values: tuple[Hashable, ...]

    def __str__(self) -> str:
        return f"one of {', '.join(map(str, self.values))}"


@dataclass(frozen=True)
class Instance:
    """A value of a Python class."""

    kind: type

    def __str__(self) -> str:
        return self.kind.__name__


Type: TypeAlias = Space | Symbols | Instance


@dataclass(frozen=True)
class Interface:
    """What a box takes and shows."""

    inputs: Mapping[str, Type] = field(default_factory=dict)
    outputs: Mapping[str, Type] = field(default_factory=dict)
    needs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The inputs that an output depends on within the same step. One that is not named depends on
    the state alone, as in a Moore machine."""

    def __post_init__(self) -> None:
        for output, needed in self.needs.items():
            if output not in self.outputs:
                raise unknown_names(f"`needs` of the output `{output}`", {output}, self.outputs)
            if strange := needed - self.inputs.keys():
                raise unknown_names(f"What the output `{output}` needs", strange, self.inputs)

    def polynomial(self) -> Poly:
        """B y^A where all types are finite and every output depends on the state alone."""
        if any(self.needs.values()):
            raise WiringError(
                f"Output `{next(iter(self.needs))}` depends on an input within the same step.",
                why="a position is shown before a direction is taken.",
                fix="keep what it needs in the state: the output follows one step later.",
            )
        return monomial(_assignments(self.outputs), _assignments(self.inputs))


def _assignments(ports: Mapping[str, Type]) -> Iterator[tuple[Hashable, ...]]:
    """All values of these ports together, in their order."""
    for name, kind in ports.items():
        if not isinstance(kind, Symbols):
            raise WiringError(
                f"Port `{name}` takes {kind}, which are not finitely many.",
                why="the polynomial is listed position by position.",
                fix="use Symbols, or run the machine instead.",
            )
    return product(*(kind.values for kind in ports.values() if isinstance(kind, Symbols)))


def unknown_names(what: str, found: Iterable[str], ports: Iterable[str]) -> WiringError:
    """Names that are no ports of an interface."""
    there = ", ".join(f"`{name}`" for name in ports) or "none"
    return WiringError(
        f"{what} does not type-check: there is no port "
        f"{', '.join(f'`{name}`' for name in sorted(found))}.",
        why="ports are those of the interface.",
        fix=f"the ports here: {there}.",
    )


OUTER = ""
"""The box that stands for the outer interface."""


@dataclass(frozen=True, order=True)
class Port:
    """A port of a box, or of the outer interface."""

    box: str
    name: str

    @classmethod
    def parse(cls, text: str) -> "Port":
        """`"box.port"`, or `"port"` of the outer interface."""
        return cls(*text.rsplit(".", 1)) if "." in text else cls(OUTER, text)

    def __str__(self) -> str:
        return f"{self.box}.{self.name}" if self.box else self.name


@dataclass(frozen=True)
class Wiring:
    """Boxes, and for each of their inputs and each outer output the source wired to it:
    `wires={"second.x": "first.y", "first.x": "x", …}`. One source may feed several.
    """

    boxes: Mapping[str, Interface]
    outer: Interface
    wires: Mapping[str, str]

    def __post_init__(self) -> None:
        for name in self.boxes:
            if not name or "." in name:
                raise WiringError(
                    f"A box cannot be called `{name}`.",
                    why="a wire names its ends as box.port.",
                    fix="give it a name without a full stop.",
                )
        self._check_ends()
        for sink in self.sinks:
            self._check_types(sink)
        for sink in self.sinks:
            self._trace(sink)

    @cached_property
    def sources(self) -> Mapping[Port, Port]:
        """Where what arrives at a port comes from."""
        return {Port.parse(sink): Port.parse(source) for sink, source in self.wires.items()}

    @cached_property
    def sinks(self) -> Mapping[Port, Type]:
        """Inputs of boxes and outer outputs: what needs a source."""
        inside = {
            Port(box, name): kind
            for box, interface in self.boxes.items()
            for name, kind in interface.inputs.items()
        }
        return inside | {Port(OUTER, name): kind for name, kind in self.outer.outputs.items()}

    @cached_property
    def origins(self) -> Mapping[Port, Type]:
        """Outputs of boxes and outer inputs: what may be a source."""
        inside = {
            Port(box, name): kind
            for box, interface in self.boxes.items()
            for name, kind in interface.outputs.items()
        }
        return inside | {Port(OUTER, name): kind for name, kind in self.outer.inputs.items()}

    @cached_property
    def interface(self) -> Interface:
        """The outer interface with what its outputs need, read from the diagram."""
        needs = {name: self._trace(Port(OUTER, name)) for name in self.outer.outputs}
        return replace(self.outer, needs={name: found for name, found in needs.items() if found})

    def _check_ends(self) -> None:
        for sink, source in self.sources.items():
            if sink not in self.sinks:
                raise self._unknown_port(sink, "an input of a box or an output of the diagram")
            if source not in self.origins:
                raise self._unknown_port(source, "an output of a box or an input of the diagram")
        for sink in self.sinks:
            if sink not in self.sources:
                raise WiringError(
                    f"{_describe(sink, is_sink=True)} does not type-check: nothing is wired to it.",
                    why="every input of a box and every output of the diagram has one source.",
                    fix=f'add "{sink}": "…" to the wires.',
                )

    def _check_types(self, sink: Port) -> None:
        source = self.sources[sink]
        takes, gives = self.sinks[sink], self.origins[source]
        if takes != gives:
            raise WiringError(
                f"{_describe(sink, is_sink=True)} does not type-check: it takes {takes}, and "
                f"{_lower_first(_describe(source, is_sink=False))} gives {gives}.",
                why="both ends of a wire have one type.",
                fix="wire another port, or put a box between them.",
            )

    def _trace(self, sink: Port, path: tuple[Port, ...] = ()) -> frozenset[str]:
        """The outer inputs that a port depends on within one step; refuses a loop."""
        source = self.sources[sink]
        if source.box == OUTER:
            return frozenset({source.name})
        if source in path:
            loop = " ← ".join(map(str, (*path[path.index(source) :], source)))
            raise WiringError(
                f"{_describe(source, is_sink=False)} does not type-check: it depends on itself "
                f"within one step ({loop}).",
                why="feedback without a state between is an equation, not a step.",
                fix="lead the wire through a box whose output depends on its state alone.",
            )
        if source not in self._traces:
            needs = self.boxes[source.box].needs.get(source.name, frozenset())
            found = [self._trace(Port(source.box, name), (*path, source)) for name in needs]
            self._traces[source] = frozenset().union(*found)
        return self._traces[source]

    @cached_property
    def _traces(self) -> dict[Port, frozenset[str]]:
        """The outer inputs behind each output of a box, as far as they were traced."""
        return {}

    def _unknown_port(self, port: Port, wanted: str) -> WiringError:
        if port.box != OUTER and port.box not in self.boxes:
            what, known = f"There is no box `{port.box}`", sorted(self.boxes)
        else:
            here = self.boxes.get(port.box, self.outer)
            what = f"`{port}` is not {wanted}"
            known = [*here.inputs, *here.outputs]
        return WiringError(
            f"{what}: the wires do not type-check.",
            why=f"known are {', '.join(known) or 'none'}.",
            fix="correct the name, or turn the wire round: wires map what receives to its source.",
        )

    def substitute(self, box: str, inner: "Wiring") -> "Wiring":
        """The diagram with another drawn into one of its boxes; inner boxes become `box/name`."""
        require_fit(box, self.boxes[box], inner.interface)
        within = {f"{box}/{name}": interface for name, interface in inner.boxes.items()}
        boxes: dict[str, Interface] = {}
        for name, interface in self.boxes.items():
            boxes |= within if name == box else {name: interface}

        def resolve(source: Port) -> Port:
            """Through the border of the box, in either direction, until a source stands there."""
            if source.box != box:
                return source
            inside = inner.sources[Port(OUTER, source.name)]
            if inside.box != OUTER:
                return Port(f"{box}/{inside.box}", inside.name)
            return resolve(self.sources[Port(box, inside.name)])

        wires = {
            str(sink): str(resolve(source))
            for sink, source in self.sources.items()
            if sink.box != box
        }
        for sink, source in inner.sources.items():
            if sink.box != OUTER:
                outside = (
                    resolve(self.sources[Port(box, source.name)])
                    if source.box == OUTER
                    else Port(f"{box}/{source.box}", source.name)
                )
                wires[f"{box}/{sink}"] = str(outside)
        return Wiring(boxes, self.outer, wires)

    def as_map(self) -> Map:
        """The map p₁ ⊗ … ⊗ p_k → q of finite Moore interfaces that the diagram denotes."""
        names, target = list(self.boxes), self.interface.polynomial()
        source = tensor(*(self.boxes[name].polynomial() for name in names))

        def arrive(sink: Port, shown: tuple, taken: tuple) -> Hashable:
            origin = self.sources[sink]
            if origin.box == OUTER:
                return taken[list(self.outer.inputs).index(origin.name)]
            outputs = list(self.boxes[origin.box].outputs)
            return shown[names.index(origin.box)][outputs.index(origin.name)]

        def outputs(shown: Hashable) -> Hashable:
            return tuple(arrive(Port(OUTER, name), shown, ()) for name in self.outer.outputs)  # type: ignore[arg-type]

        def inputs(shown: Hashable, taken: Hashable) -> Hashable:
            return tuple(
                tuple(arrive(Port(box, name), shown, taken) for name in self.boxes[box].inputs)  # type: ignore[arg-type]
                for box in names
            )

        return build_map(source, target, outputs, inputs)


def _describe(port: Port, *, is_sink: bool) -> str:
    if port.box == OUTER:
        return f"{'Output' if is_sink else 'Input'} `{port.name}` of the diagram"
    return f"Box `{port.box}`, {'input' if is_sink else 'output'} `{port.name}`,"


def _lower_first(text: str) -> str:
    return text[0].lower() + text[1:]


def require_fit(box: str, wanted: Interface, found: Interface) -> None:
    """Refuses what does not fit into a box: other ports or types, or an output that depends at once
    on more inputs than the box allows.
    """
    for side, takes, gives in (
        ("input", wanted.inputs, found.inputs), ("output", wanted.outputs, found.outputs)
    ):  # fmt: skip
        for name in dict.fromkeys((*takes, *gives)):
            if takes.get(name) != gives.get(name):
                raise WiringError(
                    f"Box `{box}`, {side} `{name}`, does not type-check: the diagram has "
                    f"{takes.get(name, 'no such port')}, what is put there "
                    f"{gives.get(name, 'no such port')}.",
                    why="what fills a box has its ports and types.",
                    fix="give the box the interface of what is put there, or the reverse.",
                )
    for name, needs in found.needs.items():
        if more := needs - wanted.needs.get(name, frozenset()):
            raise WiringError(
                f"Box `{box}`, output `{name}`, does not type-check: it depends on "
                f"{', '.join(sorted(more))} within one step.",
                why="the diagram was checked for loops without that dependence.",
                fix="declare it in the `needs` of the box.",
            )
