"""Figures for papers: a style file, a width, formats, text as text, LaTeX; and each bad value refused before hours of work."""

import json
import re
import shutil
import struct
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import engine
from engine.base.clone import Commit, commit
from engine.base.errors import UserError
from engine.figures import catalog, reproduce, runs
from engine.figures.page import Page, inches, page
from engine.record.columns import columns_for
from engine.report import style
from engine.report.gauges import GAUGES
from engine.spec import load_spec, preset_names

from synthetic import make_run

drawings = pytest.importorskip("engine.figures.drawings")

TEXT = "{http://www.w3.org/2000/svg}text"


@pytest.fixture
def results(own_home):
    """A made run for each preset of figure 4, which has three columns of plots."""
    run = make_run(own_home, steps=200)
    return [runs.Result(runs.Wanted(preset, run.spec, "η = 0.02"), run, run.table(), 100, {1: 100})
            for preset in catalog.presets(catalog.named("fig4"), True)]


def test_a_figure_is_as_wide_as_asked_in_every_format_and_its_text_is_text(results, tmp_path):
    asked = page(width="140mm", dpi=100, formats="pdf,svg,png")
    assert drawings.save(catalog.named("fig1"), results[:1], tmp_path, "fig", asked) == ["fig.pdf", "fig.svg", "fig.png"]
    width, height = struct.unpack(">II", (tmp_path / "fig.png").read_bytes()[16:24])
    assert width == int(140 / 25.4 * 100)
    drawing = ElementTree.parse(tmp_path / "fig.svg").getroot()
    assert float(drawing.get("width").removesuffix("pt")) == pytest.approx(140 / 25.4 * 72)
    assert float(drawing.get("height").removesuffix("pt")) == pytest.approx(height / 100 * 72, abs=1)
    assert {"training loss L(θ)", "sharpness S(θ)", "2/η", "gradient descent"} <= {text.text for text in drawing.iter(TEXT)}
    body = (tmp_path / "fig.pdf").read_bytes()
    [box] = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", body)
    assert [float(side) for side in box] == pytest.approx([140 / 25.4 * 72, height / 100 * 72], abs=1)
    assert b"/CIDFontType2" in body  # TrueType, embedded: fonttype 42
    assert b"/Type3" not in body


def test_nothing_of_a_narrow_figure_lies_on_its_neighbour_or_outside(results):
    asked = page(width="3.4in")
    with style.in_style(scale=asked.text_scale(11.7)):
        canvas = drawings.trajectories(results)[""]
        drawings.at_width(canvas, asked)
        boxes = [axes.get_window_extent() for axes in canvas.axes]
        for axes, box in zip(canvas.axes, boxes, strict=True):
            assert axes.get_title(loc="left") == "" or axes._left_title.get_window_extent().width <= box.width + canvas.dpi * 0.3
        [legend] = canvas.legends
        assert legend.get_tightbbox().width <= canvas.bbox.width
        assert legend.get_tightbbox().y1 < min(box.y0 for box in boxes)
    with style.in_style(), pytest.raises(UserError, match="--width 1in: too narrow"):
        drawings.at_width(drawings.trajectories(results)[""], page(width="1in"))


def test_the_text_of_a_style_file_has_its_own_size_and_that_of_eos_shrinks_with_the_figure():
    assert Page(width=5.5).text_scale(11) == 0.6
    assert Page(width=5.5).text_scale(6.875) == 0.8
    assert Page(width=20).text_scale(10) == Page().text_scale(10) == 1
    with style.in_style({"font.size": 7.0, "axes.labelsize": 7.0}, scale=0.6):
        import matplotlib
        assert [matplotlib.rcParams[name] for name in ("font.size", "axes.labelsize", "axes.titlesize")] == [7, 7, 6]
        assert matplotlib.rcParams["font.family"] == ["sans-serif", style.FALLBACK]  # which has θ† where the chosen font has not


def test_a_style_file_lies_over_that_of_eos_in_figures_and_in_plots_of_records(own_home, tmp_path):
    file = tmp_path / "paper.mplstyle"
    file.write_text("font.size: 7\naxes.labelsize: 7\naxes.grid: False  # ours draws one\nsavefig.dpi: 300\n")
    make_run(own_home)
    record = engine.load("made")
    assert [record.plot("gd.x", **given).axes[0].xaxis.label.get_size() for given in ({}, {"style": str(file)})] == [10, 7]
    asked = page(style=file)
    assert asked.dots_per_inch() == 300
    assert page(style=file, dpi=150).dots_per_inch() == 150
    facts = json.loads(json.dumps(asked.facts()))
    assert facts["style"] == {"file": "paper.mplstyle",
                              "settings": {"axes.grid": "False", "axes.labelsize": "7.0", "font.size": "7.0", "savefig.dpi": "300.0"}}


@pytest.mark.parametrize(("line", "words"), [
    ("fnt.size: 8", r'Bad key fnt\.size in file .*line 1 .*did you mean "font\.size"'), ("font.size 8", "Missing colon in file .*line 1"),
    ("font.size: large one", "font.size"), ("backend: pgf", "'backend', that is not related to style"), (b"\xff\xfe: 1", "utf-8"),
])
def test_what_matplotlib_would_pass_over_in_a_style_file_is_refused(line, words, tmp_path):
    (tmp_path / "a.mplstyle").write_bytes(line if isinstance(line, bytes) else line.encode())
    with pytest.raises(UserError, match=f"(?s)^--style .*{words}"):
        page(style=tmp_path / "a.mplstyle")


@pytest.mark.parametrize(("given", "words"), [
    ({"width": "84"}, "--width 84: expected a length with its unit, as in 5.5in, 84mm or 8.4cm"),
    ({"width": "-3in"}, "--width -3in: expected a length"), ({"width": "84px"}, "expected a length with its unit"),
    ({"width": "3mm"}, "--width 3mm: expected a width from 25.4mm to 508mm"), ({"width": "3m"}, "with its unit"),
    ({"dpi": 0}, "--dpi 0: expected dots per inch from 30 to 1200"), ({"dpi": 5000}, "--dpi 5000"),
    ({"dpi": 300, "formats": "pdf,svg"}, "--dpi 300: pdf and svg have no dots; add png to --format"),
    ({"formats": "pgn"}, '--format pgn: "pgn" is none; did you mean "png".; expected some of "svg", "png", "pdf"'),
    ({"formats": ""}, '--format : "" is none'), ({"formats": "pdf,eps"}, '"eps" is none'),
])
def test_bad_values_are_refused_with_what_would_do(given, words):
    with pytest.raises(UserError, match=words):
        page(**given)


def test_lengths_are_read_in_their_units():
    assert [inches(words) for words in ("5.5in", "84mm", " 8.4 cm ", "2.in")] == pytest.approx([5.5, 84 / 25.4, 84 / 25.4, 2])
    assert page(formats="png, svg,png").formats == ("png", "svg")


def test_latex_is_refused_by_the_name_of_the_program_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(style.shutil, "which", lambda program: None if program == "dvipng" else "/usr/bin/latex")
    (tmp_path / "tex.mplstyle").write_text("text.usetex: True\n")
    for given in ({"latex": True}, {"style": tmp_path / "tex.mplstyle"}):
        with pytest.raises(UserError, match="`dvipng` is not on the path; install TeX Live"):
            page(**given)


def test_latex_has_a_word_for_every_symbol_of_figures_and_of_columns():
    """And what LaTeX keeps for itself is written so that it means itself."""
    from matplotlib.figure import Figure

    words = Path(drawings.__file__).read_text() + "".join(f"{gauge.formula}{gauge.claim}" for gauge in GAUGES)
    for spec in map(load_spec, preset_names()):
        words += spec.title + "".join(column.symbol + column.words for column in columns_for(spec))
    assert {mark for mark in words if ord(mark) > 127} <= {*style.SYMBOLS, "…", "–", "\N{COMBINING MACRON}"}
    canvas = Figure()
    text = canvas.text(0, 0, "S̄ & {x} in %", usetex=True)
    style.escape(canvas)
    assert text.get_text() == r"\ensuremath{\bar{S}} \& \{x\} in \%"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("latex") is None or shutil.which("dvipng") is None, reason="LaTeX is not installed")
def test_latex_sets_the_text_of_a_figure(results, tmp_path):
    """Only LaTeX itself says whether it takes every label."""
    assert drawings.save(catalog.named("fig4"), results, tmp_path, "fig4", page(latex=True, formats="pdf,png")) == ["fig4.pdf", "fig4.png"]
    assert b"CMR" in (tmp_path / "fig4.pdf").read_bytes()


def test_a_clone_says_its_commit_and_whether_it_was_changed(tmp_path):
    def git(*words):
        command = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    say = commit.__wrapped__
    assert say(tmp_path) is None
    git("init", "-q")
    assert say(tmp_path) is None  # nothing is committed
    for folder in ("engine", "presets", "notes"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text("1\n")
    git("add", ".")
    git("commit", "-qm", "a")
    assert say(tmp_path) == Commit(git("rev-parse", "HEAD"), False)
    (tmp_path / "notes" / "a.py").write_text("2\n")
    assert not say(tmp_path).dirty
    (tmp_path / "engine" / "b.py").write_text("2\n")
    assert say(tmp_path).dirty
    assert say(tmp_path / "engine") is None  # a folder within another's clone


def test_the_data_say_their_units_and_the_manifest_the_rest(results, tmp_path):
    figure = catalog.named("fig4")
    reproduce._write_data(figure, results, tmp_path, "fig4", False)
    head = (tmp_path / "fig4.csv").read_text().splitlines()[0].split(",")
    assert "transported.since_anchor [steps]" in head
    assert head[:4] == ["run", "learning_rate", "step", "gd.loss"]
    described = {each["name"]: each for each in reproduce._described(figure, results)}
    assert described["gd.sharpness"]["symbol"] == "S(θ)"
    assert list(described) == [name.partition(" [")[0] for name in head[3:]]
    assert np.isfinite(float((tmp_path / "fig4.csv").read_text().splitlines()[1].split(",")[3]))
