"""What the topics take from the code: presets, columns, figures, and the data sets that are downloaded."""

from collections.abc import Sequence
from operator import attrgetter

import msgspec

from engine.data.catalog import ENTRIES, archives
from engine.figures.catalog import FIGURES
from engine.help.catalog import Section
from engine.record import columns, hdf5
from engine.record.columns import Column
from engine.record.edges import EDGES
from engine.spec import PREDICTIONS, CoupledTracking, Metrics, Optimizer, load_spec, preset_names
from engine.spec.sections import AnyOptimizer


def _least(kind: str, **more: bool) -> Optimizer:
    """A section of this kind with its defaults but for `more`."""
    given = {"kind": kind, "learning_rate": 1.0, **more} | ({"function": "module:name"} if kind == "own" else {})
    return msgspec.convert(given, AnyOptimizer)


COLUMNS: tuple[tuple[str, str, Sequence[Column]], ...] = (
    ("clock", "In every run.", columns.CLOCK),
    ("gd", "Gradient descent; in every run of a loss.", (*columns.DESCENT, *columns.eigenvalues(2))),
    ("constrained", "From the edge on: the constrained trajectory θ†, and gradient descent beside it.", columns.COUPLED),
    ("directions", 'From the edge on, with `tracking.on_second_eigenvalue = "follow"`: several directions at the edge. Columns of further '
     "ones, up to `tracking.max_eigenvalues`, are as those of the first.", columns.directions(3)),
    *((form, f"With `{form}` among `tracking.predictions`.", columns.predicted(form, several=True)) for form in PREDICTIONS),
    ("theorem", "What Theorem 1 leaves over, with `transported` among `tracking.predictions`.", columns.THEOREM),
    ("unrolled", "With `tracking.beta_every` above 0.", columns.UNROLLED),
    ("landscape", "Every `tracking.landscape_every` steps.", columns.LANDSCAPE),
    ("assumption", "Every `tracking.gauges_every` steps.", (*columns.ASSUMPTIONS, columns.FOURTHS)),
    *((name, beside.words, beside.columns(CoupledTracking())) for name, beside in columns.BESIDE.items()),
    ("training", 'With `tracking.mode = "sharpness"`.', (*columns.ACCURACY, *columns.TEST)),
    ("preconditioned", "With an optimizer other than gradient descent, of Adam here; further eigenvalues are as the second.",
     columns.preconditioned(_least("adam"), 2)),
    ("rmsprop", 'With `tracking.central_from`, of RMSProp with `scalar = true`; else without the last two.', columns.rmsprop_flow(True)),
    ("smoothness", 'With `optimizer.kind` "sign" or "muon".', columns.smoothness(_least("sign"))),
    ("batch", "With `batch.size` above 0: steps on batches. `threshold_ratio` and the gap are of gradient descent alone.",
     columns.batches(_least("gradient_descent"))),
    ("norm", 'With `tracking.mode = "sharpness"` and `optimizer.weight_decay`.', columns.NORM),
    ("phase", 'With `problem.kind = "phase"`: of each start 1, 2, ….', columns.phase(1)),
    ("projection", "Every `recording.projections_every` steps, with `recording.projections` above 0: of direction 1, 2, ….",
     columns.projections(1)),
    ("metric", "With `metrics`: quantities of your own.", columns.metrics(Metrics(functions={"norm": "my_module:norm"}))),
    ("cost", "In every run of a loss.", columns.COST),
)
"""Families of columns: name, when they are recorded, members."""


def column_sections() -> list[Section]:
    """A section for each family; gd.lambda3 and further ones are as gd.lambda2."""
    return [Section(name, name, words, tuple((column.name, _description(column)) for column in family)) for name, words, family in COLUMNS]


def _description(column: Column) -> str:
    unit = f" In {column.unit}." if column.unit else ""
    return f", {column.symbol}: {column.words}. `{column.formula}`.{unit} {column.source}."


FORMS: dict[str, tuple[dict[str, bool], ...]] = {"momentum": ({"nesterov": True}, {"ema": True}), "adam": ({"nesterov": True},)}
"""Fields that give an optimizer of a kind another edge."""


def optimizers() -> str:
    """A row for each optimizer and its forms: its update, the operator that is read, its edge and where that is from."""
    rows = []
    for kind, edge in EDGES.items():
        for form in ({}, *FORMS.get(kind, ())):
            name = ", ".join([f"`{kind}`", *(f"`{field} = true`" for field in form)])
            update = "as above" if form else f"`{edge.update}`"
            rows.append((name, update, f"`{edge.operator}`", f"`{edge.edge(_least(kind, **form))}`", edge.sources))
    return table(("kind", "θ ← θ − η·", "operator", "edge", "source"), rows)


def presets() -> str:
    """A row for each preset: its name, its title and how long it takes."""
    specs = map(load_spec, preset_names())
    return table(("preset", "what it shows"), [(f"`{spec.name}`", f"{spec.title}; {spec.takes}") for spec in specs])


def figures() -> str:
    """A row for each figure: its name, its title, and the presets it is made from."""
    rows = ((f"`{figure.name}`", figure.title, ", ".join(f"`{name}`" for name in figure.presets)) for figure in FIGURES.values())
    return table(("figure", "what it shows", "presets"), list(rows))


def layout() -> str:
    """The names of the centralflows repository, and what of a run each of them is."""
    rows = [(f"`{name}`", f"`{column}`") for name, column in (hdf5.SAME | hdf5.SCALAR).items()]
    rows += [(f"`{name}`", f"`{column}` squared") for name, column in hdf5.SQUARES.items()]
    also = "; for gradient descent `effective_hessian_eigs` too"
    for stacked, scaled in ((hdf5.STACKED, also), (hdf5.PRECONDITIONED, ", 2/threshold times")):
        for name, (first, further) in stacked.items():
            several = f", `{further.format(2)}`, …" if further else ""
            rows.append((f"`{name}` (T, k)", f"`{first}`{several}{scaled}"))
    return table(("dataset", "columns of eos"), rows)


def data_sets() -> str:
    """A row for each data set that tensorflow-datasets brings: how many examples it has, and the size of what is downloaded."""
    rows = []
    for entry in sorted(ENTRIES.values(), key=attrgetter("name")):
        train, test = entry.examples
        size = sum(archive.bytes for archive in archives(entry))
        rows.append((f"`{entry.name}`", f"{train:,} + {test:,}", f"{size / 1e6:.0f} MB"))
    return table(("data set", "to train on + to test on", "archives"), rows)


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in (names, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(names), *lines[1:]])
