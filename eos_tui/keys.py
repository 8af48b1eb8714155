"""Every key, once. Bindings, footer, `?` help, palette and the topic of keys are all made from `TABLE`.

The settings may give an action other keys (`remap`): bindings follow by id, and whatever prints keys asks `table()`.

Ctrl-a, -b, -s and -q are left alone: tmux, screen and flow control take them before a program sees them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from engine.base.errors import UserError

if TYPE_CHECKING:  # Textual is imported where it is needed: headless runs do without
    from textual.binding import Binding

Place = Literal["dashboard", "page", "spectrum", "turning", "landscape", "events", "help", "tour", "play", "launcher", "anywhere"]
PLACES: dict[Place, str] = {
    "dashboard": "on the dashboard", "page": "on a page", "spectrum": "on the spectrum", "turning": "on the page of x turning",
    "landscape": "on the landscape", "events": "on the page of events", "help": "on the page of help",
    "tour": "on the tour", "play": "in `eos play`", "launcher": "on the launcher", "anywhere": "anywhere",
}
WITHIN: dict[Place, Place] = {"spectrum": "page", "turning": "page", "landscape": "page", "events": "page", "help": "page"}
"""A place whose keys work in another one too."""


class Key(NamedTuple):
    """One thing that a key does."""

    keys: str
    """As Textual names them, separated by commas."""
    shown: str
    """As help and footer print them."""
    action: str
    """`app.` or `screen.` and the action's name."""
    label: str
    """One or two words, for footer and palette."""
    help: str
    """A sentence."""
    place: Place
    group: str
    rank: int = 0
    """Order in the footer, where room is scarce. 0 keeps it out of the footer."""

    @property
    def method(self) -> str:
        """The action without its namespace and arguments."""
        return self.action.partition(".")[2].partition("(")[0]

    @property
    def name(self) -> str:
        """What the settings call it: its label in plain letters, as `zoom_in`."""
        return "_".join(re.findall("[a-z0-9]+", self.label.replace("η", "eta").lower()))

    @property
    def id(self) -> str:
        """Place and name: no other key has it."""
        return f"{self.place}.{self.name}"

    def binding(self) -> "Binding":
        """As Textual wants it."""
        from textual.binding import Binding

        return Binding(self.keys, self.action, self.label, key_display=self.shown, tooltip=self.help, show=self.rank > 0, id=self.id)


ENGINE, PLOTS, TIME, PAGE, TOUR, PLAY, RUNS, EOS = "Engine", "Plots", "Time axis and cursor", "Page", "Tour", "Play", "Launcher", "eos"

TABLE: tuple[Key, ...] = (
    Key("space", "space", "screen.toggle_engine", "pause", "Pause the engine at the next step, or let it go on; so too a replay.",
        "dashboard", ENGINE, 2),
    Key(".", ".", "screen.step_once", "step", "Take exactly one step, then pause; so too a replay.", "dashboard", ENGINE, 3),
    Key("S", "S", "screen.advance", "N steps", "Take exactly N steps, then pause.", "dashboard", ENGINE, 13),
    Key("e", "e", "screen.learning_rate", "set η", "Change the learning rate: the line at 2/η moves, and the constrained "
        "trajectory and the predictions restart from there.", "dashboard", ENGINE, 4),
    Key("}", "}", "screen.learning_rate(1)", "η larger", "The prompt for η with a tenth more in it; enter sets it.",
        "dashboard", ENGINE),
    Key("{", "{", "screen.learning_rate(-1)", "η smaller", "The prompt for η with a tenth less in it; enter sets it.",
        "dashboard", ENGINE),
    Key("N", "N", "screen.advance_to('stage')", "next stage", "Go on to the next stage of the cycle, then pause.",
        "dashboard", ENGINE, 26),
    Key("E", "E", "screen.advance_to('event')", "next event", "Go on to the next event of any kind, then pause.",
        "dashboard", ENGINE, 27),
    Key("F", "F", "screen.fork", "fork", "A new run from the newest checkpoint up to the cursor's step, with another learning rate "
        "or other settings.", "dashboard", ENGINE, 28),
    Key("r", "r", "screen.anchor", "re-anchor", "Set every prediction to the true displacement, now.", "dashboard", ENGINE, 5),
    Key("R", "R", "screen.anchor_every", "re-anchor every N", "Re-anchor every N steps from here; 0 ends it.",
        "dashboard", ENGINE),
    Key("k", "k", "screen.checkpoint", "checkpoint", "Write a checkpoint now.", "dashboard", ENGINE),
    Key("x", "x", "screen.stop", "stop", "Checkpoint and end the run; asks first.", "dashboard", ENGINE, 14),
    Key("tab", "tab", "screen.focus_plot(1)", "next plot", "Focus the next plot.", "dashboard", PLOTS),
    Key("shift+tab", "shift+tab", "screen.focus_plot(-1)", "previous plot", "Focus the previous plot.", "dashboard", PLOTS),
    Key("enter", "enter", "screen.zoom_plot", "zoom", "Show the focused plot alone, on the whole screen.",
        "dashboard", PLOTS, 7),
    Key("escape", "esc", "screen.back", "back", "Leave the zoomed plot, then the replay, then the cursor.", "dashboard", PLOTS),
    *(Key(str(k), str(k), f"screen.jump({k})", f"plot {k}", f"Focus plot {k}, by the number in its title.", "dashboard", PLOTS)
      for k in range(1, 7)),
    Key("G", "G", "screen.layout", "layout", "All plots that fit, two large ones, or one; `[view] plots` in the settings has their order.",
        "dashboard", PLOTS, 9),
    Key("n,pagedown", "n pgdn", "screen.page(1)", "next page", "Show the next plots, where they do not all fit.",
        "dashboard", PLOTS, 6),
    Key("b,pageup", "b pgup", "screen.page(-1)", "previous page", "Show the plots before.", "dashboard", PLOTS),
    Key("p", "p", "screen.predictions", "predictions", "Choose which predictions are drawn: the generalized one, the cubic "
        "ones with it, none.", "dashboard", PLOTS, 8),
    Key("y", "y", "screen.log_axis", "log axis", "Logarithmic or linear axis on the focused plot.", "dashboard", PLOTS, 12),
    Key("s", "s", "screen.smooth", "smoothing", "A running mean over 10, 50, 250 rows on the focused plot, or none; the curve "
        "itself stays, fainter.", "dashboard", PLOTS, 23),
    Key("o", "o", "screen.strands", "odd and even", "Odd and even steps of the focused plot as two lines, or the band between "
        "them.", "dashboard", PLOTS, 24),
    Key("h", "h", "screen.series", "curves", "Choose what the focused plot draws: its own curves and any other recorded quantity.",
        "dashboard", PLOTS, 22),
    Key("m", "m", "screen.compare", "compare", "Other runs: where they stand and what they differ in; up to eight are laid "
        "over this one, edge on edge, in the plots of sharpness and loss.", "dashboard", PLOTS, 21),
    Key("M", "M", "screen.compare_everywhere", "compare all", "Draw the other runs in every plot, or in those of sharpness and "
        "loss alone.", "dashboard", PLOTS),
    Key("d", "d", "screen.start", "place a start", "Place a start (X, Y) in the phase portrait and watch the flow (4) and the map (3) "
        "from there; the arrows move it, a click places it too.", "dashboard", PLOTS),
    Key("up", "↑", "screen.nudge(1)", "start up", "Move the start of the portrait up.", "dashboard", PLOTS),
    Key("down", "↓", "screen.nudge(-1)", "start down", "Move the start of the portrait down.", "dashboard", PLOTS),
    Key("shift+up", "shift+↑", "screen.nudge(1, True)", "finely up", "Move the start of the portrait up a little.",
        "dashboard", PLOTS),
    Key("shift+down", "shift+↓", "screen.nudge(-1, True)", "finely down", "Move the start of the portrait down a little.",
        "dashboard", PLOTS),
    Key("i", "i", "screen.formula", "formula", "What the focused plot shows: words, symbols, formulas, place in the paper.",
        "dashboard", PLOTS, 9),
    Key("v", "v", "screen.journal", "events", "Every event of the run, in sentences.", "dashboard", PLOTS, 15),
    Key("a", "a", "screen.assumptions", "assumptions", "The assumptions of the theory as gauges: value, history, and green, "
        "amber or red by a stated rule.", "dashboard", PLOTS),
    Key("L", "L", "screen.spectrum", "spectrum", "Every eigenvalue that is followed, against 2/η and 1.5/η, and when each became "
        "unstable; those of θ†, with who is at the edge and who swings; the density of all eigenvalues, and the sharpness by layer.",
        "dashboard", PLOTS),
    Key("X", "X", "screen.turning", "turning x", "The path of x in two directions at the edge, over the ellipse of the covariance that is "
        "predicted of it: with several directions x turns. Arrows choose the two.", "dashboard", PLOTS),
    Key("U", "U", "screen.landscape", "landscape", "The loss along u at θ† against x²/η, sub- or super-quadratic, and the sharpness it "
        "predicts beside the measured one; and the loss in the plane of u and ∇S⊥, with the path in it. Arrows step through samples.",
        "dashboard", PLOTS, 29),
    Key("T", "T", "screen.theorem", "theorem", "What Theorem 1 leaves over against the orders it states, where it claims nothing, and "
        "how long each prediction held.", "dashboard", PLOTS, 30),
    Key("H", "H", "screen.system", "system", "The engine's host, wherever it is: CPU, memory, and the load and memory of GPUs.",
        "dashboard", PLOTS),
    Key("f", "f", "screen.freeze", "freeze", "Freeze what is shown; the engine goes on.", "dashboard", PLOTS, 11),
    Key("+,=", "+", "screen.zoom_time(0.5)", "zoom in", "Show half as many steps, about the cursor or up to the newest.",
        "dashboard", TIME, 16),
    Key("-", "-", "screen.zoom_time(2)", "zoom out", "Show twice as many steps.", "dashboard", TIME),
    Key("[", "[", "screen.pan(-1)", "earlier", "Move a quarter of the axis back.", "dashboard", TIME),
    Key("]", "]", "screen.pan(1)", "later", "Move a quarter of the axis on; at the end, follow the newest step again.",
        "dashboard", TIME),
    Key("0", "0", "screen.reset_time", "whole run", "Show the whole run, or follow its last bursts again: after the edge a run "
        "that goes on, or is played again, is followed so. The cursor stays.", "dashboard", TIME, 10),
    Key("c", "c", "screen.cursor", "cursor", "A cursor on all plots, with the exact step and the stored values.",
        "dashboard", TIME, 10),
    Key("left", "←", "screen.move_cursor(-1)", "cursor left", "Move the cursor, or a replay, back by a hundredth of the axis.",
        "dashboard", TIME),
    Key("right", "→", "screen.move_cursor(1)", "cursor right", "Move the cursor, or a replay, on by a hundredth of the axis.",
        "dashboard", TIME),
    Key("shift+left", "shift+←", "screen.move_cursor(-1, True)", "one step left", "Move the cursor, or a replay, back by one step.",
        "dashboard", TIME),
    Key("shift+right", "shift+→", "screen.move_cursor(1, True)", "one step right", "Move the cursor, or a replay, on by one step.",
        "dashboard", TIME),
    Key("u", "u", "screen.axis", "axis", "What the axis counts: steps, the time ηt, steps since the edge.", "dashboard", TIME, 25),
    Key("g", "g", "screen.replay", "replay", "Play the run again from the cursor, or from its first step; again returns to the "
        "newest step.", "dashboard", TIME, 12),
    Key("<", "<", "screen.speed(0.5)", "slower", "Play the replay at half the speed.", "dashboard", TIME),
    Key(">", ">", "screen.speed(2)", "faster", "Play the replay at twice the speed.", "dashboard", TIME),
    Key("l", "l", "screen.launcher", "launcher", "Presets and past runs. The engine goes on.", "dashboard", EOS, 18),
    Key("escape,q,enter", "esc", "screen.dismiss(None)", "close", "Back to where it was opened; so does the key that opened the page.",
        "page", PAGE),
    Key("i", "i", "screen.formula", "formula", "What the page shows: words, symbols, formulas, place in the paper.", "page", PAGE),
    Key("tab", "tab", "screen.turn(1)", "next view", "On to the eigenvalues of θ†, to the spectral density, to the sharpness by layer.",
        "spectrum", PAGE),
    Key("shift+tab", "shift+tab", "screen.turn(-1)", "view before", "Back through the views of the spectrum.", "spectrum", PAGE),
    Key("d", "d", "screen.density", "take density", "Have the engine read the whole spectrum at the present θ: its density, the "
        "Gauss–Newton share of each eigenvalue followed, and the sharpness by layer.", "spectrum", PAGE),
    Key("left", "←", "screen.move(-1)", "earlier reading", "Show the reading of the density before.", "spectrum", PAGE),
    Key("right", "→", "screen.move(1)", "later reading", "Show the reading after; at the newest, follow it.", "spectrum", PAGE),
    Key("left", "←", "screen.choose(0, -1)", "lower across", "The direction before, along the horizontal axis.", "turning", PAGE),
    Key("right", "→", "screen.choose(0, 1)", "higher across", "The next direction along the horizontal axis.", "turning", PAGE),
    Key("down", "↓", "screen.choose(1, -1)", "lower upward", "The direction before, along the vertical axis.", "turning", PAGE),
    Key("up", "↑", "screen.choose(1, 1)", "higher upward", "The next direction along the vertical axis.", "turning", PAGE),
    Key("left", "←", "screen.move(-1)", "earlier sample", "Show the sample before.", "landscape", PAGE),
    Key("right", "→", "screen.move(1)", "later sample", "Show the sample after; at the newest, follow it.", "landscape", PAGE),
    Key("home", "home", "screen.move_to_end(-1)", "first sample", "Show the first sample.", "landscape", PAGE),
    Key("end", "end", "screen.move_to_end(1)", "newest sample", "Show the newest sample and follow it.", "landscape", PAGE),
    Key("tab", "tab", "screen.turn(1)", "other picture", "On to the plane of u and ∇S⊥, and to the valley cut across, with the ball in it.",
        "landscape", PAGE),
    Key("shift+tab", "shift+tab", "screen.turn(-1)", "picture before", "Back through the pictures.", "landscape", PAGE),
    Key("/", "/", "screen.filter", "filter", "Narrow the events down by words, while they are typed.", "events", PAGE),
    Key("/", "/", "screen.filter", "filter", "Narrow keys and topics down by words in them, while they are typed.", "help", PAGE),
    Key("tab,shift+tab", "tab", "screen.topics", "topics", "Between the keys and the topics of `eos help`.", "help", PAGE),
    Key("right", "→", "screen.into(True)", "into the text", "From the list of topics into the text, where the arrows scroll.",
        "help", PAGE),
    Key("left", "←", "screen.into(False)", "to the list", "Back to the list of topics.", "help", PAGE),
    Key("ctrl+c", "ctrl+c", "app.detach", "detach", "Leave. The engine goes on; `eos attach` returns.", "page", PAGE),
    Key("space,right", "space", "screen.next_step", "next", "The next step of the tour; its engine goes on from where it waits.",
        "tour", TOUR, 2),
    Key("b,left", "b", "screen.previous_step", "previous", "The step before.", "tour", TOUR, 3),
    Key("a", "a", "screen.by_itself", "by itself", "Go on by itself when what the step waits for has happened, or by key alone.",
        "tour", TOUR, 4),
    Key("r", "r", "screen.anchor", "re-anchor", "Set every prediction to the true displacement, now.", "tour", TOUR, 7),
    Key("i", "i", "screen.formula", "formula", "What the plots show: words, symbols, formulas, place in the paper.",
        "tour", TOUR, 6),
    Key("o", "o", "screen.open_dashboard", "open the run", "Leave the tour for the dashboard of the run it looks at.",
        "tour", TOUR, 5),
    Key("escape,l", "esc", "screen.leave", "leave", "Leave the tour for the launcher. Its engines stop, with a checkpoint.",
        "tour", TOUR, 8),
    Key("space", "space", "screen.pause", "pause", "Pause, or play on.", "play", PLAY, 2),
    Key("right", "→", "screen.step(1)", "step", "One step on, and pause.", "play", PLAY, 3),
    Key("left", "←", "screen.step(-1)", "step back", "One step back, and pause.", "play", PLAY, 4),
    Key("tab", "tab", "screen.turn", "cycle / valley", "The large picture: the cycle, or the valley that steps jump "
        "through.", "play", PLAY, 5),
    Key("escape,l", "esc", "screen.leave", "leave", "Leave for the launcher.", "play", PLAY, 6),
    Key("enter", "enter", "screen.open", "start or open", "Start the chosen preset, or open the chosen run.",
        "launcher", RUNS, 2),
    Key("tab", "tab", "screen.other_pane", "presets / runs", "Between presets and past runs.", "launcher", RUNS, 3),
    Key("/", "/", "screen.filter", "filter", "Narrow the presets or the runs down while words are typed: of names, titles and "
        "groups; of tags, η and how a run ended.", "launcher", RUNS, 4),
    Key("space", "space", "screen.mark", "mark", "Mark the chosen run for m, T and d, or take its mark off.", "launcher", RUNS, 6),
    Key("m", "m", "screen.compare", "compare", "Open the marked runs together, laid over the newest of them.", "launcher", RUNS, 7),
    Key("T", "T", "screen.tags", "tags", "Words to find the chosen run by; or that all marked ones are to have too.", "launcher", RUNS, 8),
    Key("d", "d", "screen.remove", "remove run", "Delete the marked runs, or the chosen one; asks first.", "launcher", RUNS, 9),
    Key("r", "r", "screen.resume_run", "resume run", "Go on with the chosen run from its last checkpoint.", "launcher", RUNS, 10),
    Key("g", "g", "app.tour", "guided tour", "The paper in twelve steps, on real runs.", "launcher", RUNS, 5),
    Key("escape", "esc", "screen.back", "back", "Show all again that a filter hides; then return to the run that was open.",
        "launcher", RUNS, 11),
    Key("w", "w", "app.screenshot_files", "screenshot", "Save the screen as SVG, ANSI and text in the folder of pictures, and say where.",
        "anywhere", EOS),
    Key("Y", "Y", "app.copy_values", "copy", "Copy the focused plot's values at the cursor, or the newest; elsewhere the screen's "
        "text. Saved to a file too.", "anywhere", EOS),
    Key("t", "t", "app.next_theme", "theme", "The next colour theme: dark, light, the terminal's own.", "anywhere", EOS),
    Key("ctrl+l", "ctrl+l", "app.redraw", "redraw", "Send the whole screen again, after something else wrote to the terminal.",
        "anywhere", EOS),
    Key("ctrl+z", "ctrl+z", "app.suspend_process", "suspend", "Give the terminal back to the shell; `fg` returns. An engine that "
        "runs goes on.", "anywhere", EOS),
    Key("question_mark", "?", "app.keys", "help", "This list of keys, and from it to the topics of `eos help`.", "anywhere", EOS, 19),
    Key("ctrl+p", "ctrl+p", "app.command_palette", "palette", "Every action, found by typing a part of its name.",
        "anywhere", EOS, 20),
    Key("q,ctrl+c", "q", "app.detach", "detach", "Leave. An engine that runs goes on; `eos attach` returns.", "anywhere", EOS, 1),
)


_remapped: dict[str, str] = {}
"""Keys that the settings give to an action, by its id."""


def remap(changes: Mapping[str, str]) -> None:
    """Give actions other keys, by id; all others have those of the table. Raises UserError where two would share a key."""
    from textual.keys import _normalize_key_list

    _remapped.clear()
    _remapped.update({ident: _normalize_key_list(keys) for ident, keys in changes.items()})
    for place in PLACES:
        owner: dict[str, Key] = {}
        for key in offered(place):
            for one in _normalize_key_list(key.keys).split(","):
                if one in owner and {key.id, owner[one].id} & _remapped.keys():
                    _remapped.clear()
                    raise UserError(f'the key "{_shown(one)}" would be both {owner[one].id} and {key.id}; give one of them another')
                owner[one] = key


def remapped() -> dict[str, str]:
    """The keys that differ from the table's, by id, as Textual wants them."""
    return dict(_remapped)


def table() -> tuple[Key, ...]:
    """The table with the keys in force."""
    return tuple(
        key._replace(keys=_remapped[key.id], shown=" ".join(map(_shown, _remapped[key.id].split(","))))
        if key.id in _remapped else key
        for key in TABLE
    )


def leaving() -> list[Key]:
    """The keys that leave eos."""
    return [key for key in table() if key.method == "detach"]


def _shown(key: str) -> str:
    """A key as help prints it: Textual's own sign for the last part, `ctrl+` and `shift+` before it."""
    from textual.keys import format_key

    *modifiers, last = key.split("+") if key != "+" else [key]
    return "+".join([*modifiers, last if last == "enter" else format_key(last)])


MOUSE: tuple[tuple[str, str], ...] = (
    ("click", "Focus a plot and put the cursor on that step; on the portrait, place a start there."),
    ("wheel", "Show fewer or more steps about the one under the mouse."),
    ("shift + wheel", "Move along the time axis; ctrl or alt do too, where the terminal keeps shift to itself."),
    ("footer", "A click on a key's name presses it."),
)
"""What the mouse does on the dashboard."""


def bindings(place: Place) -> "list[Binding]":
    """The Textual bindings of a place."""
    return [key.binding() for key in TABLE if key.place == place]


def modal_bindings(place: Place, *without: str) -> "list[Binding]":
    """Those of a page, with all that works anywhere: Textual asks nothing beneath a modal screen. Some methods may be missing."""
    return [key.binding() for key in _offered(TABLE, place) if key.method not in without]


def shown(ident: str) -> str:
    """What to press for an action, by its id."""
    return next(key for key in table() if key.id == ident).shown.split()[0]


def closing(ident: str) -> "Binding":
    """The key with this id, which opened a page, closes it."""
    key = next(key for key in TABLE if key.id == ident)
    return key._replace(action="screen.dismiss(None)").binding()


def offered(place: Place) -> list[Key]:
    """What works in a place: its own keys and those that work anywhere."""
    return _offered(table(), place)


def _offered(keys: Sequence[Key], place: Place) -> list[Key]:
    own = [key for key in keys if key.place in (place, WITHIN.get(place))]
    methods = {key.method for key in own}
    return [key for key in keys if key in own or (key.place == "anywhere" and key.method not in methods)]


def footer(place: Place) -> list[Key]:
    """The keys of a place's footer, the most needed first."""
    return sorted((key for key in offered(place) if key.rank), key=lambda key: key.rank)


def groups(keys: list[Key] | tuple[Key, ...] = TABLE) -> Iterator[tuple[str, list[Key]]]:
    """Keys by group, in the order of the table."""
    for group in dict.fromkeys(key.group for key in keys):
        yield group, [key for key in keys if key.group == group]
