"""Diagrams: what is refused before anything runs, and that drawing one into another and running is
the same as running nested machines.
"""

from random import Random

import pytest

from unseen.errors import WiringError
from unseen.models.nested.diagram import diagram
from unseen.models.nested.machine import Machine, Rewiring, connect, function, moore, run
from unseen.models.nested.polynomial import build_map, parallel, store
from unseen.models.nested.wiring import Instance, Interface, Space, Symbols, Wiring

BIT = Symbols((0, 1))
DELAY = Interface({"i": BIT}, {"o": BIT})
GATE = Interface({"i": BIT}, {"o": BIT}, {"o": frozenset({"i"})})


def random_interface(draw: Random) -> Interface:
    ports = range(draw.randint(1, 2))
    return Interface({f"i{k}": BIT for k in ports}, {f"o{k}": BIT for k in ports})


def random_wiring(draw: Random, boxes: dict[str, Interface], outer: Interface) -> Wiring:
    shown = [f"{box}.{port}" for box, inside in boxes.items() for port in inside.outputs]
    inner = [f"{box}.{port}" for box, inside in boxes.items() for port in inside.inputs]
    wires = {sink: draw.choice([*shown, *outer.inputs]) for sink in inner}
    return Wiring(boxes, outer, wires | {sink: draw.choice(shown) for sink in outer.outputs})


def random_machine(draw: Random, interface: Interface) -> Machine:
    """Three states; what they show and where they go is drawn at random."""
    shows = [{port: draw.randint(0, 1) for port in interface.outputs} for _ in range(3)]
    goes = [[draw.randrange(3) for _ in range(4)] for _ in range(3)]

    def update(state, inputs):
        return goes[state][sum(bit << k for k, bit in enumerate(inputs.values()))]

    return moore(interface, draw.randrange(3), shows.__getitem__, update)


def random_nest(draw: Random):
    """(outer diagram, diagram for its box `a`, machines in both)."""
    boxes = {name: random_interface(draw) for name in "ab"}
    outer = random_wiring(draw, boxes, random_interface(draw))
    inner = random_wiring(draw, {name: random_interface(draw) for name in "cd"}, boxes["a"])
    machines = {name: random_machine(draw, one) for name, one in inner.boxes.items()}
    return outer, inner, machines, random_machine(draw, boxes["b"])


def outputs(machine: Machine, stream) -> list[dict[str, int]]:
    return [shown for shown, _ in run(machine, stream)]


def test_substituted_diagrams_run_as_nested_machines_in_1000_random_cases():
    draw = Random(0)
    for _ in range(1_000):
        outer, inner, machines, b = random_nest(draw)
        nested = connect(outer, {"a": connect(inner, machines), "b": b})
        flat = connect(
            outer.substitute("a", inner), {f"a/{k}": m for k, m in machines.items()} | {"b": b}
        )
        stream = [{p: draw.randint(0, 1) for p in outer.outer.inputs} for _ in range(12)]
        assert outputs(nested, stream) == outputs(flat, stream)


def test_a_diagram_runs_as_the_map_of_polynomials_that_it_denotes():
    """Machines are maps S y^S → p; those of a diagram are their tensor, then the diagram's map."""
    draw = Random(1)
    for _ in range(100):
        wiring = random_wiring(draw, {"a": DELAY, "b": random_interface(draw)}, DELAY)
        machines = {name: random_machine(draw, one) for name, one in wiring.boxes.items()}
        stream = [{"i": draw.randint(0, 1)} for _ in range(12)]
        shown = [one["o"] for one in outputs(connect(wiring, machines), stream)]
        system = parallel(*map(as_map, machines.values())) >> wiring.as_map()
        state, expected = tuple(machine.start for machine in machines.values()), []
        for inputs in stream:
            expected += system.forward[state]
            state = system.back[state, (inputs["i"],)]
        assert shown == expected


def as_map(machine: Machine):
    """The machine as a map from its states, its responses tabulated."""
    interface = machine.interface

    def readout(state):
        return tuple(machine.respond(state).output(port, {}.get) for port in interface.outputs)

    def update(state, taken):
        return machine.respond(state).update(dict(zip(interface.inputs, taken, strict=True)))

    return build_map(store(range(3)), interface.polynomial(), readout, update)


def test_feedback_takes_one_step():
    """An output of a Moore machine follows its state: a ring of two delays has period two."""
    flip = moore(DELAY, 0, lambda s: {"o": s}, lambda s, i: i["i"])
    invert = function(DELAY, o=lambda i: 1 - i)
    ring = Wiring(
        {"delay": DELAY, "invert": invert.interface},
        Interface(outputs={"o": BIT}),
        {"delay.i": "invert.o", "invert.i": "delay.o", "o": "delay.o"},
    )
    machine = connect(ring, {"delay": flip, "invert": invert})
    assert [shown["o"] for shown in outputs(machine, [{}] * 4)] == [0, 1, 0, 1]


def test_a_diagram_that_changes_by_its_state():
    """The selector is wired to `a` until a 1 has flowed, from then on to `b`."""
    constant = {k: function(Interface(outputs={"o": BIT}), o=lambda k=k: k) for k in (0, 1)}
    boxes = {"a": constant[0].interface, "b": constant[1].interface, "seen": DELAY}
    outer = Interface({"i": BIT}, {"o": BIT})
    modes = {k: Wiring(boxes, outer, {"seen.i": "i", "o": f"{k}.o"}) for k in "ab"}
    changing = Rewiring(modes, "a", str, lambda s, flows: "b" if flows["seen"]["i"] else s)
    seen = moore(DELAY, 0, lambda s: {"o": s}, lambda _, i: i["i"])
    machine = connect(changing, {"a": constant[0], "b": constant[1], "seen": seen})
    assert [out["o"] for out in outputs(machine, [{"i": i} for i in (0, 1, 0, 0)])] == [0, 0, 1, 1]
    other = Wiring({"b": boxes["b"]}, Interface(outputs={"o": BIT}), {"o": "b.o"})
    with pytest.raises(WiringError, match="Mode `b` has other boxes"):
        Rewiring(modes | {"b": other}, "a", str, lambda s, _: s)


@pytest.mark.parametrize(
    ("wires", "says"),
    [
        ({"a.i": "i", "o": "b.o"}, "Box `b`, input `i`, does not type-check: nothing is wired"),
        ({"a.i": "i", "b.i": "a.o"}, "Output `o` of the diagram does not type-check: nothing"),
        ({"a.i": "i", "b.i": "a.p", "o": "b.o"}, "`a.p` is not an output of a box"),
        ({"a.i": "i", "b.i": "c.o", "o": "b.o"}, "There is no box `c`"),
        ({"a.o": "i", "b.i": "a.o", "o": "b.o"}, "`a.o` is not an input of a box"),
        ({"a.i": "b.o", "b.i": "a.o", "o": "b.o"}, r"depends on itself within one step \(.*←"),
    ],
)
def test_wires_that_do_not_type_check_name_box_and_port(wires, says):
    with pytest.raises(WiringError, match=says):
        Wiring({"a": GATE, "b": GATE}, Interface({"i": BIT}, {"o": BIT}), wires)


def test_types_at_both_ends_of_a_wire_are_compared():
    second = Interface(inputs={"x": Space((32,)), "dy": Space((64,), dual=True)})
    boxes = {"first": Interface(outputs={"y": Space((64,))}), "second": second}
    with pytest.raises(WiringError, match=r"`second`, input `x`.*shape 32, and box `first`.*64"):
        Wiring(boxes, Interface(), {"second.x": "first.y", "second.dy": "first.y"})
    boxes["second"] = Interface(inputs={"dy": Space((64,), dual=True)})
    with pytest.raises(WiringError, match=r"takes gradients of shape 64, and .* gives values"):
        Wiring(boxes, Interface(), {"second.dy": "first.y"})
    with pytest.raises(WiringError, match="takes dict, and input `x` of the diagram gives list"):
        Wiring(
            {"a": Interface({"i": Instance(dict)})}, Interface({"x": Instance(list)}), {"a.i": "x"}
        )
    with pytest.raises(WiringError, match="without a full stop"):
        Wiring({"a.b": Interface()}, Interface(), {})


def test_what_fills_a_box_has_its_ports_and_no_more_dependence():
    outer = Wiring({"a": DELAY}, Interface({"i": BIT}, {"o": BIT}), {"a.i": "i", "o": "a.o"})
    through = Wiring({}, Interface({"i": BIT}, {"o": BIT}), {"o": "i"})
    assert through.interface.needs == {"o": frozenset({"i"})}
    with pytest.raises(WiringError, match="output `o`, does not type-check: it depends on i"):
        outer.substitute("a", through)
    with pytest.raises(WiringError, match=r"Box `a`, output `o`.*no such port"):
        connect(outer, {"a": function(Interface({"i": BIT}, {"p": BIT}), p=lambda i: i)})
    with pytest.raises(WiringError, match="do not match: b"):
        connect(outer, {"a": moore(DELAY, 0, dict, dict), "b": moore(DELAY, 0, dict, dict)})
    passing = Wiring({"a": GATE}, outer.outer, {"a.i": "i", "o": "a.o"})
    assert passing.substitute("a", through).wires == {"o": "i"}
    with pytest.raises(WiringError, match="depends on an input within the same step"):
        passing.as_map()
    with pytest.raises(WiringError, match="not finitely many"):
        Interface({"x": Space((2,))}).polynomial()


def test_a_ladder_of_many_paths_is_traced_once():
    """Two wires from each rung to the next: 2^60 paths."""
    rung = Interface({"i": BIT, "j": BIT}, {"o": BIT}, {"o": frozenset({"i", "j"})})
    boxes = {f"b{k}": rung for k in range(60)}
    wires = {f"b{k}.{p}": f"b{k - 1}.o" if k else "i" for k in range(60) for p in "ij"}
    found = Wiring(boxes, Interface({"i": BIT}, {"o": BIT}), wires | {"o": "b59.o"})
    assert found.interface.needs == {"o": frozenset({"i"})}


def test_a_diagram_has_every_wire():
    wiring = Wiring({"a": GATE}, Interface({"i": BIT}, {"o": BIT}), {"a.i": "i", "o": "a.o"})
    figure = diagram(wiring, "one gate")
    assert figure.boxes == {"a": (["i"], ["o"])}
    assert [(wire.source, wire.sink) for wire in figure.wires] == [("i", "a.i"), ("a.o", "o")]


def test_names_that_are_no_ports_are_refused_before_a_step_or_by_name():
    both = Interface({"i": BIT}, {"o": BIT})
    with pytest.raises(WiringError, match=r"`needs` of the output `p`.*no port `p`"):
        Interface({"i": BIT}, {"o": BIT}, {"p": frozenset({"i"})})
    with pytest.raises(WiringError, match=r"output `o` needs.*no port `j`"):
        Interface({"i": BIT}, {"o": BIT}, {"o": frozenset({"j"})})
    with pytest.raises(WiringError, match="no port `p`"):
        function(both, o=lambda i: i, p=lambda i: i)
    with pytest.raises(WiringError, match="No function is given for the output `o`"):
        function(both)
    with pytest.raises(WiringError, match="Nothing arrives at `i`"):
        list(run(function(both, o=lambda i: i), [{}]))
    silent = moore(both, 0, lambda _: {}, lambda state, _: state)
    with pytest.raises(WiringError, match="shows nothing at the output `o`"):
        list(run(silent, [{"i": 0}]))


def test_a_state_that_chooses_no_wiring_is_refused():
    with pytest.raises(WiringError, match="no wiring to choose from"):
        Rewiring({}, None, lambda _: "", lambda state, _: state)
    through = Wiring({}, Interface({"i": BIT}, {"o": BIT}), {"o": "i"})
    diagram = Rewiring({"a": through}, None, lambda _: "b", lambda state, _: state)
    with pytest.raises(WiringError, match="mode `b`, which has no wiring"):
        list(run(connect(diagram, {}), [{"i": 0}]))
