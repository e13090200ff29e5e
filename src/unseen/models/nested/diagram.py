"""A wiring as a figure; `unseen.report.figures.draw` makes an SVG of it."""

from unseen.figure import Diagram, Wire
from unseen.models.nested.wiring import Space, Type, Wiring


def diagram(wiring: Wiring, title: str = "") -> Diagram:
    """Boxes in the order of the wiring; values, gradients and other things have lines of their
    own.
    """
    boxes = {name: (list(box.inputs), list(box.outputs)) for name, box in wiring.boxes.items()}
    wires = [
        Wire(source=str(source), sink=str(sink), kind=_kind(wiring.origins[source]))
        for sink, source in wiring.sources.items()
    ]
    frame = (list(wiring.outer.inputs), list(wiring.outer.outputs))
    return Diagram(title=title or "Wiring diagram", boxes=boxes, frame=frame, wires=wires)


def _kind(kind: Type) -> str:
    if isinstance(kind, Space):
        return "gradients" if kind.dual else "values"
    return "symbols and objects"
