"""The head of the dashboard: which run, how far, how fast, how near to the edge, and what is happening in plain words."""

import math
import re
import textwrap
from collections.abc import Callable, Mapping

from textual.app import ComposeResult
from textual.content import Content
from textual.widget import Widget

from engine.base.text import harmless
from engine.record.threshold import in_force, of_gradient_descent
from engine.report.narrative import lasting, sentence
from engine.theory import STAGES
from eos_tui.draw.theme import role_color
from eos_tui.model.source import Condition, Source
from eos_tui.widgets.line import Line

Color = Callable[[str], str]
"""The colour of a role."""

GAUGE_END = 1.2
STILL_SECONDS = 2.0
"""Without a row, after which that is told: a little more than the engine takes to say what it is at."""
SIGNS: dict[str, tuple[str, str, str, str]] = {  # what the engine does -> sign, sign in ASCII, word, role
    "starting": ("◌", "o", "starting", "warn"),
    "running": ("●", "*", "live", "good"),
    "paused": ("‖", "=", "paused", "warn"),
    "finished": ("■", "#", "finished", "muted"),
    "crashed": ("✗", "x", "crashed", "bad"),
    "silent": ("?", "?", "silent", "bad"),
    "unknown": ("?", "?", "unknown", "warn"),
    "removed": ("✗", "x", "removed", "bad"),
}


def condition(condition: Condition, color: Color, ascii: bool = False) -> Content:
    """What the engine does, by sign, word and colour."""
    sign, plain, word, role = SIGNS[condition]
    return Content.assemble((f"{plain if ascii else sign} {word}", f"bold {color(role)}"))


def view(source: Source, color: Color, ascii: bool = False) -> Content:
    """What the screen shows where that is not the newest step: a frozen picture, or a replay and its speed."""
    if source.replay is None:
        return Content.assemble((" view frozen ", f"bold reverse {color('warn')}"))
    replay = source.replay
    sign = (">" if ascii else "▶") if replay.playing else ("=" if ascii else "‖")
    return Content.assemble((f" {sign} replay {replay.speed:g}/s ", f"bold reverse {color('warn')}"))


def gauge(value: float, cells: int, color: Color, ascii: bool = False) -> Content:
    """ηS/2 from 0 to 1.2 as a bar of `cells` cells, with a mark at 1: the edge of stability."""
    full, half, rest, mark, more = ("=", "-", ".", "|", ">") if ascii else ("━", "╸", "─", "┃", "▶")
    at_edge = round(cells / GAUGE_END)
    filled = 0.0 if math.isnan(value) else min(max(value, 0.0) / GAUGE_END, 1.0) * cells
    over = value > 1
    whole = int(filled)
    bar = full * whole + (half if filled - whole >= 0.5 else "")
    bar = bar.ljust(cells, rest)
    if value > GAUGE_END:
        bar = bar[:-1] + more
    parts: list[tuple[str, str]] = []
    for start, stop in ((0, at_edge), (at_edge + 1, cells)):
        split = min(max(whole + (filled - whole >= 0.5), start), stop)
        parts += [(bar[start:split], color("warn" if over and start else "gd")), (bar[split:stop], color("muted"))]
    return Content.assemble(*parts[:2], (mark, f"bold {color('threshold')}"), *parts[2:])


def identity(source: Source, color: Color, width: int, ascii: bool = False) -> Content:
    """Preset, run, condition, step, rate, η, device; its number formats are told with the formulas."""
    state, spec = source.state, source.run.spec
    muted = color("muted")
    parts: list[Content] = [Content.assemble((f" {spec.name}", "bold"))]
    if width >= 100:
        parts.append(Content.assemble((source.name, muted)))
    if source.view != "live":
        parts.insert(0, view(source, color, ascii))
    if source.replay is None:
        parts.append(condition(source.condition, color, ascii))
    parts.append(Content.assemble(("step ", muted), (f"{source.step:>7,}" if width >= 56 else f"{source.step:,}", "bold")))
    if source.replay is not None:
        parts.append(Content.assemble((f"of {source.replay.last:,.0f}", muted)))
    elif source.condition == "running" and state.rate > 0:
        parts.append(Content.assemble((f"{rate(state.rate):>7}", ""), ("/s", muted)))
    if state.learning_rate > 0:
        parts.append(Content.assemble(("η ", muted), (f"{state.learning_rate:.4g}", "")))
    if state.device:
        parts.append(Content.assemble((state.device, muted)))
    return Content("  ").join(parts)


def rate(steps_per_second: float) -> str:
    """Steps a second, in three digits."""
    return f"{steps_per_second:,.0f}" if steps_per_second >= 100 else f"{steps_per_second:.3g}"


def position(source: Source, row: Mapping[str, float], color: Color, width: int, ascii: bool = False) -> Content:
    """Where the run is: ηS/2, or what an optimizer has in its place, as a gauge, the phase, and the stage of the cycle."""
    muted, state = color("muted"), source.state
    sharpness, before = row.get("gd.sharpness", math.nan), row.get("gd.midpoint_sharpness", math.nan)
    if state.phase == "approach" or math.isnan(sharpness):
        sharpness = before
    ratio, name = sharpness / in_force(row, state.learning_rate), "ηS/2"
    if "batch.sharpness" in row:
        ratio, name = row["batch.sharpness"] / of_gradient_descent(state.learning_rate), "ηS_B/2"
    elif "threshold_ratio" in row:
        ratio, name = ratio if state.phase == "approach" else row["threshold_ratio"], "S/edge"
    elif "smoothness.directional" in row:
        ratio, name = row["smoothness.directional"] / in_force(row, state.learning_rate), "ηD/2"
    cells = 24 if width < 100 else 36
    number = f"{ratio:6.3f}" if math.isfinite(ratio) else "     –"
    parts = [Content.assemble((f" {name} ", muted), gauge(ratio, cells, color, ascii), (number, "bold"))]
    if state.phase == "phase portrait":
        parts = [Content(" ")]  # the simplified system has no sharpness, only y
    stage = row.get("stage", math.nan)
    if state.phase == "edge" and stage in STAGES:
        parts.append(Content.assemble((f"stage {stage:.0f} of 4: ", muted), (STAGES[int(stage)], "bold")))
    else:
        parts.append(Content.assemble((state.phase, "bold")))
    epsilon = row.get("constrained.epsilon", math.nan)
    if math.isfinite(epsilon) and width >= 100:
        parts.append(Content.assemble(("ε ", muted), (f"{epsilon:.3f}", "")))
    return Content("   ").join(parts)


def story(source: Source, row: dict[str, float], color: Color) -> Content:
    """What is happening, in a sentence."""
    state = source.state
    if source.replay is not None and not source.replay.over:
        return Content(sentence(state, row))
    if source.condition == "removed":
        return Content.assemble(("The run directory is gone: it was removed.", color("bad")))
    if source.displaced:
        return Content.assemble((f"{harmless(source.displaced)}; what is shown is the run that was opened here.", color("bad")))
    if source.condition == "crashed":
        last = source.log.strip().splitlines()[-1:]
        log = f"Its log ends: {last[0]}" if last else "Its log is empty."
        text = f"The engine is gone without a word; every row on disk is kept. {log}"
        return Content.assemble((text, color("bad")))
    if source.condition == "silent":
        text = f"Nothing heard from {state.host} for a while: its engine is gone, or the shared folder lags."
        return Content.assemble((text, color("bad")))
    if source.condition == "unknown":
        text = f"Whether its engine on {state.host} is at work cannot be told: no file can be written here to read the folder's clock."
        return Content.assemble((text, color("warn")))
    if source.condition == "starting" and not len(source.history) and not state.task:
        return Content(f"The engine is starting: it compiles its steps first, then the curves begin; {lasting(source.still_for)}.")
    return Content(sentence(state, row) + still(source))


def still(source: Source) -> str:
    """For how long no row has come, where the engine has not said what it is at."""
    if source.still_for < STILL_SECONDS or source.state.task:
        return ""
    each = f", and a step takes about {lasting(1 / source.state.rate)}" if 0 < source.state.rate < 1 / STILL_SECONDS else ""
    return f" · no new step for {lasting(source.still_for)}{each}"


def kept_whole(text: Content, width: int) -> Content:
    """The text on lines of so many cells, none of which ends within a formula: `ε = 0.11` stays on one."""
    lines = textwrap.wrap(re.sub(r" ([=≤≥<>≪←−]) ", "\u00a0\\1\u00a0", text.plain), max(width, 1))
    wrapped = "\n".join(lines).replace("\u00a0", " ")
    return Content(wrapped, spans=[*text.spans]) if len(wrapped) == len(text.plain) else text


class Header(Widget):
    """Three rows: who, where, what; the last may take two."""

    DEFAULT_CSS = """
    Header { height: 3; layout: vertical; }
    Header.short { height: 2; }
    Header.short #story { display: none; }
    Header.tall { height: 4; }
    Header.tall #story { height: 2; padding-left: 1; }
    #story { padding-left: 1; }
    """

    def __init__(self, ascii: bool = False):
        super().__init__()
        self.ascii = ascii
        self.lines = Line("identity"), Line("position"), Line("story")
        self.long = False
        """Whether what is happening takes more than a row."""

    def compose(self) -> ComposeResult:
        yield from self.lines

    def show(self, source: Source, note: str = "", cursor: str = "") -> None:
        """Show where this run stands; `note` at the right, and the values under the `cursor` in place of the sentence."""
        width, row = self.size.width, source.row()

        def color(role: str) -> str:
            return role_color(self.app.theme, role)

        who = identity(source, color, width - len(note) - 1, self.ascii)
        if note:
            who = who.truncate(width - len(note) - 2, ellipsis=True)
            who += Content(" " * max(width - len(note) - 1 - who.cell_length, 1)) + Content.assemble((note, color("muted")))
        what = Content.assemble((cursor, "bold")) if cursor else story(source, row, color)
        self.long = bool(cursor) or what.cell_length > width - 1
        if self.has_class("tall"):
            what = kept_whole(what, width - 1)
        shown = who, position(source, row, color, width, self.ascii), what
        for line, content in zip(self.lines, shown, strict=True):
            line.show(content)
