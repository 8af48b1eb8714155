"""`reproduce`: the runs a figure needs are read again, cut ones go on, and what is written can be trusted."""

import csv
import json
from contextlib import ExitStack

import numpy as np
import pytest

from engine import theory
from engine.base.errors import UserError
from engine.commands.main import main
from engine.figures import catalog, page, progress, runs
from engine.jobs import launch
from engine.jobs.follow import Followed
from engine.record import store
from engine.record.columns import columns_for
from engine.record.writer import Writer
from engine.report import ink
from engine.spec import load_spec

from synthetic import make_run

TINY = ("budget.steps=12", "problem.starts=[0.5]")


def drawn(tmp_path, *more: str) -> int:
    return main(["reproduce", "fig3", "--out", str(tmp_path / "out"), *(part for one in TINY for part in ("--set", one)), *more])


def test_a_figure_is_written_with_its_data_and_a_manifest_and_its_runs_are_kept(tmp_path, own_home, capfd):
    pytest.importorskip("matplotlib")
    assert drawn(tmp_path) == 0
    out = tmp_path / "out"
    assert capfd.readouterr().out.split() == [str(out / f"fig3.{ending}") for ending in ("svg", "png", "csv", "json")]
    assert (out / "fig3.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (out / "fig3.svg").read_text(encoding="utf-8")

    rows = list(csv.DictReader((out / "fig3.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 3 * 12
    assert rows[0]["run"] != rows[12]["run"]
    first = store.resolve(rows[0]["run"]).table()
    assert [float(row["ode1.x"]) for row in rows[:12]] == pytest.approx(first["ode1.x"], rel=1e-9)

    manifest = json.loads((out / "fig3.json").read_text(encoding="utf-8"))
    assert [run["label"] for run in manifest["runs"]] == ["α = 1, β = 1", "α = 4, β = 1", "α = 1, β = 4"]
    assert manifest["runs"][1]["spec"]["problem"]["alpha"] == 4.0
    assert {"versions", "device", "seed", "edge_step", "eigen_residuals", "seconds"} <= manifest["runs"][0].keys()

    made = {path.name: path.stat().st_mtime_ns for path in own_home.glob("*/metrics.f64")}
    image = (out / "fig3.png").read_bytes()
    assert drawn(tmp_path, "--json") == 0
    shown, err = capfd.readouterr()
    assert "3 of 3 runs are there already" in err
    assert json.loads(shown)["runs"] == manifest["runs"]
    assert {path.name: path.stat().st_mtime_ns for path in own_home.glob("*/metrics.f64")} == made
    assert (out / "fig3.png").read_bytes() == image


def test_a_run_cut_short_goes_on_from_its_checkpoint(own_home):
    want = runs.wanted(catalog.named("fig3"), False, ("budget.steps=1000",))[0]
    run = store.create(want.spec, want.name)
    from engine.process.runner import Runner

    with Writer(run) as writer:
        stepping = Runner(run, writer).blocks()
        next(stepping)
        stepping.close()  # as Ctrl-C does: a checkpoint, and the outcome "stopped"
    before = run.row_count()
    assert 0 < before < 1000
    assert runs.read(want) is None
    quiet = progress.FigureProgress([want], 0)
    assert runs.carry_out([want], quiet.display)
    result = runs.read(want)
    assert result is not None
    assert list(result.table["step"]) == list(range(1000))
    assert any("continued from the checkpoint" in event.text for event in run.events())


def test_a_run_that_another_engine_is_at_work_on_is_left_alone(own_home):
    want = runs.wanted(catalog.named("fig3"), False, TINY)[0]
    run = store.create(want.spec, want.name)
    with Writer(run), pytest.raises(UserError, match="already"):
        runs.carry_out([want], progress.FigureProgress([want], 0).display)


def test_a_run_that_ends_badly_is_reported_and_nothing_is_drawn(own_home, monkeypatch):
    want = runs.wanted(catalog.named("fig3"), False, TINY)[0]
    monkeypatch.setattr(launch, "start", lambda run, group=None: 2**22 + 1)  # no such child: an engine that never came up
    with pytest.raises(UserError, match="gone without a word"):
        runs.carry_out([want], lambda stack, k: (print, lambda followed, state: None))


def test_without_matplotlib_a_sentence_comes_before_any_run(own_home, monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    assert drawn(tmp_path) == 2
    err = capfd.readouterr().err
    assert err == "eos: figures are drawn by matplotlib, which is not installed; pip install 'eos-tui[figures]' brings it\n"
    assert not own_home.exists()
    assert not (tmp_path / "out").exists()


def test_an_unknown_figure_is_refused_with_what_there_is(capfd):
    assert main(["reproduce", "fig44"]) == 2
    assert capfd.readouterr().err.startswith('eos: figure "fig44": not known; did you mean "fig4"?; expected one of "fig1", "fig2"')


def test_a_folder_that_cannot_be_made_is_reported_before_any_run(own_home, tmp_path, capfd):
    (tmp_path / "out").write_text("in the way", encoding="utf-8")
    pytest.importorskip("matplotlib")
    assert drawn(tmp_path) == 2
    assert "give another folder with --out" in capfd.readouterr().err
    assert not own_home.exists()


def test_a_figure_is_run_at_every_learning_rate_of_its_preset():
    wants = runs.wanted(catalog.named("fig1"), True)
    assert [want.spec.optimizer.learning_rate for want in wants] == list(load_spec("fig1-small").optimizer.learning_rates)
    assert [want.label for want in wants] == [f"η = {want.spec.optimizer.learning_rate:g}" for want in wants]
    assert len({want.name for want in wants}) == len(wants)


def test_a_run_is_named_after_what_it_computes_not_after_its_words():
    name = runs.wanted(catalog.named("fig1"), True)[0].name
    assert runs.wanted(catalog.named("fig1"), True, ("takes=longer",))[0].name == name
    assert runs.wanted(catalog.named("fig1"), True, ("seed=1",))[0].name != name


def test_figures_that_are_small_by_themselves_have_no_twin():
    assert catalog.presets(catalog.named("fig2"), small=True) == ("fig2",)
    assert catalog.presets(catalog.named("fig4"), small=True) == ("fig4-mlp-small", "fig4-cnn-small", "fig4-transformer-small")


@pytest.mark.parametrize("name", ["fig1", "fig4", "fig5", "fig6", "appendix-e", "appendix-g"])
def test_every_drawing_holds_its_curves_and_the_threshold(name, own_home):
    drawings = pytest.importorskip("engine.figures.drawings")
    run = make_run(own_home, steps=200)
    want = runs.Wanted("fig1-small", run.spec, "η = 0.02")
    pages = drawings.DRAWINGS[name]([runs.Result(want, run, run.table(), 100, {1: 100})])
    lines = [line for page in pages.values() for axes in page.axes for line in axes.lines]
    assert lines
    if name not in ("appendix-e",):
        flat = [line for line in lines if len({float(y) for y in line.get_ydata()}) == 1]
        assert any(float(line.get_ydata()[0]) == pytest.approx(2 / want.spec.optimizer.learning_rate) for line in flat)


def result_of(own_home, preset: str, **columns) -> runs.Result:
    """A made run as the result of a preset, with other values in some of its columns (`__` for a point), by step."""
    run = make_run(own_home, steps=200)
    table = run.table()
    table |= {name.replace("__", "."): np.asarray(values(table), float) for name, values in columns.items()}
    return runs.Result(runs.Wanted(preset, run.spec, "η = 0.02"), run, table, 100, {1: 100, 2: 150})


def curve(axes, values) -> bool:
    """Whether these values are drawn as one line."""
    return any(len(line.get_ydata()) == len(values) and np.allclose(line.get_ydata(), values) for line in axes.lines)


@pytest.mark.parametrize(("name", "form"), [("fig4", "transported"), ("appendix-g", "generalized")])
def test_a_prediction_is_drawn_from_anchor_to_anchor_with_a_tick_at_each(name, form, own_home):
    """Figure 4 shows (5), the appendix the generalized form; what another form says is nowhere in them."""
    drawings = pytest.importorskip("engine.figures.drawings")
    other = {"transported": "generalized", "generalized": "transported"}[form]

    def since(table):
        return np.where(table["step"] < 100, np.nan, (table["step"] - 100) % 40)

    said = {f"{form}__{quantity}": lambda t, k=k: t["step"] / 50 + k for k, quantity in enumerate(("loss", "sharpness", "distance"))}
    said |= {f"{other}__{quantity}": lambda t: np.full(len(t["step"]), 3.25) for quantity in ("loss", "sharpness", "distance")}
    result = result_of(own_home, "fig4-mlp-small", **said, **{f"{form}__since_anchor": since})
    (page,) = drawings.DRAWINGS[name]([result]).values()
    shown = page.axes[:3] if name == "fig4" else page.axes[:2]
    for k, axes in enumerate(shown):
        for start, end in ((100, 140), (140, 180), (180, 200)):
            assert curve(axes, np.arange(start, end) / 50 + k)
        (ticks,) = [line for line in axes.lines if line.get_marker() == "|"]
        assert list(ticks.get_xdata()) == [0, 40, 80]
        assert not any(3.25 in np.asarray(line.get_ydata()) for line in axes.lines)
    if name == "fig4":
        assert curve(shown[2], result.table["gd.distance"][100:])
        assert f"{form}.distance" in catalog.named(name).columns
    words = [text.get_text() for legend in page.legends for text in legend.get_texts()]
    assert any("(5)" in word if form == "transported" else "generalized" in word for word in words)


def test_a_prediction_far_off_does_not_press_what_was_measured_to_the_axis(own_home):
    drawings = pytest.importorskip("engine.figures.drawings")
    result = result_of(own_home, "fig4-mlp-small", transported__distance=lambda t: np.where(t["step"] > 150, 1e9, 0),
                       transported__since_anchor=lambda t: t["step"] - 100)
    (page,) = drawings.DRAWINGS["fig4"]([result]).values()
    largest = max(np.nanmax(result.table[f"{family}.distance"]) for family in ("gd", "flow"))
    low, high = page.axes[2].get_ylim()
    assert largest < high < 1.3 * largest
    assert -0.1 * largest < low <= 0


def test_eigenvalues_have_strokes_of_their_own_and_the_approach_is_shown(own_home):
    drawings = pytest.importorskip("engine.figures.drawings")
    colors, dashes = zip(*ink.STROKES, strict=True)
    assert len(set(colors[:8])) == len(set(dashes[:8])) == 8
    assert len(set(ink.STROKES)) == len(ink.STROKES) == 16
    several = {f"gd__lambda{k}": lambda t, k=k: np.where(t["step"] < 100, np.nan, 100 - 5 * k + t["step"] % 2) for k in range(2, 9)}
    result = result_of(own_home, "fig5-small", **several, gd__sharpness=lambda t: np.where(t["step"] < 100, np.nan, 101 - t["step"] % 2),
                       gd__midpoint_sharpness=lambda t: np.where(t["step"] % 20 == 0, t["step"], np.nan))
    (page,) = drawings.DRAWINGS["fig5"]([result]).values()
    below = page.axes[1]
    drawn = [line for line in below.lines if str(line.get_label()).startswith("λ") and len(line.get_xdata()) > 50]
    assert len({(line.get_color(), str(line._unscaled_dash_pattern)) for line in drawn}) == len(drawn) == 8
    assert all(np.ptp(np.asarray(line.get_ydata())[100:]) == 0 for line in drawn)  # the mean of a step and the next
    assert curve(below, np.arange(0, 200, 20))
    assert "gd.midpoint_sharpness" in catalog.named("fig5").columns
    assert len(below.collections) == 8  # their bands


def test_the_four_stages_are_drawn_with_the_energy_that_the_map_gains(own_home):
    drawings = pytest.importorskip("engine.figures.drawings")
    orbit = theory.map_orbit(0.15, 0, 1, 1, 0.02, 199)
    ones = {f"constrained__{name}": lambda t: np.ones(len(t["step"])) for name in ("alpha", "beta")}
    result = result_of(own_home, "fig2", gd__x=lambda t: orbit[:, 0], gd__y=lambda t: orbit[:, 1], **ones)
    (page,) = drawings.DRAWINGS["fig2"]([result]).values()
    (gain,) = [axes for axes in page.axes if "gains energy: about 1 + 2ε² a step" in axes.get_title()]
    energy = theory.conserved(orbit[:, 0], orbit[:, 1], 1, 1)
    assert curve(gain, energy / energy[0])
    assert curve(gain, (1 + 2 * 0.02**2) ** np.arange(200))


def test_the_simplified_system_is_drawn_over_time_too(own_home):
    drawings = pytest.importorskip("engine.figures.drawings")
    want = runs.wanted(catalog.named("fig3"), False, ("budget.steps=400",))[1]
    assert runs.carry_out([want], progress.FigureProgress([want], 0).display)
    result = runs.read(want)
    (page,) = drawings.DRAWINGS["fig3"]([result]).values()
    plane, over_time = page.axes
    for k in range(1, 5):
        assert any(np.array_equal(line.get_ydata(), result.table[f"ode{k}.x"]) for line in over_time.lines)
        (orbit,) = [line for line in plane.lines if line.get_label() == f"X(0) = {result.wanted.spec.problem.starts[k - 1]:g} δ"]
        turn = orbit.get_xdata()
        np.testing.assert_array_equal(turn, result.table[f"ode{k}.x"][: len(turn)])  # once around
        assert len(turn) == 400 or abs(turn[-1] - turn[0]) < 0.02
    assert "τ" in over_time.get_xlabel()


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("name", ["fig4", "appendix-e", "appendix-g"])
def test_every_run_of_a_figure_records_what_the_figure_is_drawn_from(name, small):
    figure = catalog.named(name)
    for preset in catalog.presets(figure, small):
        recorded = {column.name for column in columns_for(load_spec(preset))}
        assert set(figure.columns) <= recorded, preset


def test_the_time_left_is_the_pace_so_far(monkeypatch):
    clock = iter([0.0, 10.0, 30.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    estimate = progress.Estimate(runs=4, kept=1)
    assert estimate.update(1, 0.5) == pytest.approx(10 * 5)  # an eighth in ten seconds, five eighths to go
    assert estimate.update(3, 0.0) == pytest.approx(15)
    assert progress.time_left(None) == "time left not known yet"
    assert [progress.time_left(seconds) for seconds in (0.2, 80, 200, 8000)] == [
        "about 1 s left", "about 80 s left", "about 3 min left", "about 2 h left",
    ]  # fmt: skip


def test_the_share_of_a_coupled_run_counts_the_approach_for_a_fifth(own_home):
    run = make_run(own_home, steps=150)
    followed = Followed(run, 2**22 + 1)
    followed.poll()
    whole = progress.share(followed, run.state())
    assert 0 < whole <= 1
    with ExitStack() as stack:
        _, draw = progress.FigureProgress([runs.Wanted("fig1-small", run.spec, "")], 0).display(stack, 0)
        draw(followed, run.state())
