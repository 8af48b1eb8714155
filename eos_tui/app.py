"""The app: one clock, two screens, and a way out that leaves the engine running."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.console import RenderableType
from textual import events
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.binding import BindingType
from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.driver import Driver
from textual.drivers.linux_driver import LinuxDriver
from textual.filter import Monochrome, NoColor
from textual.geometry import Region
from textual.screen import Screen

from engine.base import folders
from engine.base.collector import collect_from_here
from engine.base.errors import UserError
from engine.record import store
from engine.record.reader import Run
from eos_tui import keys
from eos_tui.draw import theme
from eos_tui.messages import OpenLauncher, OpenRun
from eos_tui.screens.arrangement import Layout
from eos_tui.screens.ground import Ground
from eos_tui.screens.live import LivePage, Page
from eos_tui.terminal import clipboard, screenshot
from eos_tui.terminal.diffdisplay import APPLIES, Difference, Screenful
from eos_tui.terminal.driver import TerminalDriver
from eos_tui.terminal.leaving import WayOut
from eos_tui.terminal.pace import DEFAULT_FPS, Pace
from eos_tui.terminal.typed_ahead import TypedAhead

if TYPE_CHECKING:
    from eos_tui.model.recording import Recording
    from eos_tui.terminal.graphics import Pictures, Placed

HANGUP_STATUS = 128 + signal.SIGHUP


class KeyCommands(Provider):
    """Every action of the table, in the palette."""

    def _offered(self) -> Iterable[tuple[str, str, str]]:
        for key in keys.offered(place_of(self.screen)):
            owner = self.app if key.action.startswith("app.") else self.screen
            if key.method != "command_palette" and hasattr(owner, f"action_{key.method}"):
                yield f"{key.label} ({key.shown})", key.action, key.help

    async def discover(self) -> Hits:
        for text, action, help in self._offered():
            yield DiscoveryHit(text, lambda action=action: self.app.run_action(action), help=help)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for text, action, help in self._offered():
            if (score := max(matcher.match(text), 0.9 * matcher.match(help))) > 0:
                yield Hit(score, matcher.highlight(text), lambda action=action: self.app.run_action(action), help=help)


def place_of(screen: Screen) -> keys.Place:
    """Where a screen is, as the table of keys says it."""
    return screen.place if isinstance(screen, Ground | Page) else "anywhere"


# Each screen is imported when it is opened first: the one that is to be drawn at once does not wait for the others.


def _launcher(pace: Pace, ascii: bool, origin: Run | None = None) -> Ground:
    from eos_tui.screens.launcher import Launcher

    return Launcher(pace, ascii, origin)


def _dashboard(run: Run, pace: Pace, ascii: bool, beside: Sequence[Run], layout: Layout, order: Sequence[str]) -> Ground:
    from eos_tui.screens.dashboard import Dashboard

    return Dashboard(run, pace, ascii, beside, layout, order)


def _tour(pace: Pace, ascii: bool) -> Ground:
    from eos_tui.screens.learn import Learn

    return Learn(pace, ascii)


def _play(recording: "Recording", pace: Pace, ascii: bool) -> Ground:
    from eos_tui.screens.play import Play

    return Play(recording, pace, ascii)


def can_be_written(folder: Path) -> bool:
    """Whether files can be put there, in a folder that may have to be made."""
    return os.access(next(each for each in (folder, *folder.parents) if each.exists()), os.W_OK)


class EosApp(TypedAhead[int], inherit_bindings=False):
    """Opens a run, with others beside it laid over it, or the launcher when there is none to open."""

    TITLE = "eos"
    BINDINGS: ClassVar[list[BindingType]] = [*keys.bindings("anywhere")]
    COMMANDS: ClassVar = {KeyCommands}
    COMMAND_PALETTE_BINDING = "ctrl+p"
    ENABLE_COMMAND_PALETTE = True

    CSS = """
    Screen { background: $background; }
    ModalScreen { align: center middle; background: $background 60%; }
    .dialog { width: 64; max-width: 95%; height: auto; max-height: 100%; padding: 1 2; border: round $primary; background: $surface; }
    .dialog { overflow-x: hidden; scrollbar-size-vertical: 1; }
    .dialog Input { margin-top: 1; }
    .dialog #error { color: $error; height: auto; }
    .page { width: 108; max-width: 98%; height: auto; max-height: 96%; padding: 0 2; background: $surface; }
    .page { border: round $primary; scrollbar-size-vertical: 1; }
    OptionList:nocolor:focus > .option-list--option-highlighted { text-style: bold underline; }
    CommandPalette CommandList:nocolor > .option-list--option-highlighted { text-style: bold underline; }
    CommandPalette SearchIcon { display: none; }
    CommandPalette CommandList { scrollbar-size-vertical: 1; }
    .ascii Drawing, .ascii .pane { border: ascii $border-blurred; }
    .ascii Drawing:focus { border: ascii $primary; }
    .ascii .pane:focus-within, .ascii .dialog, .ascii .page { border: ascii $primary; }
    .ascii .page, .ascii .dialog, .ascii OptionList, .ascii CommandList, .ascii #text { scrollbar-size-vertical: 0; }
    .ascii CommandPalette #--input, .ascii CommandPalette CommandList { border: none; }
    .ascii #about { border-top: ascii $border-blurred; }
    .quiet { color: $text-muted; margin-top: 1; }
    """

    def __init__(self, run: Run | None = None, fps: float = DEFAULT_FPS, ascii: bool = False, theme_choice: str = "auto",
                 tour: bool = False, beside: Sequence[Run] = (), recording: "Recording | None" = None, layout: Layout = "all",
                 order: Sequence[str] = (), pictures: str = "", drawn: "Pictures | None" = None, note: str = ""):
        super().__init__()
        self._first, self._beside, self._recording = run, beside, recording
        self._arranged: tuple[Layout, Sequence[str]] = layout, order
        """The layout that dashboards begin with, and the names of the panels that stand first."""
        self._tour = tour
        self.pictures = pictures
        """The folder that screenshots are saved to; empty for the platform's."""
        self.pace = Pace(fps)
        self.ascii = ascii
        self._shown = Screenful()
        self._drawn = drawn
        """The pictures over the cells, where they were asked for and the terminal takes them."""
        self._note = note
        """What is to be said at first."""
        self.way_out: WayOut | None = None
        """Where the app is a terminal's, and signals and keys are to end it whatever it is at."""
        self.loop: asyncio.AbstractEventLoop | None = None
        self.seen: Run | None = None
        """The run that was open last: what to say on leaving."""
        self.set_class(ascii, "ascii")
        for each in theme.THEMES:
            self.register_theme(each)
        self.theme = theme.chosen(theme_choice, self.console.color_system in ("256", "truecolor", None), os.environ)
        # With NO_COLOR Textual mixes greys unless its theme at birth was of sixteen colours; none at all is what was asked for.
        self._filters = [NoColor() if isinstance(each, Monochrome) else each for each in self._filters]
        self.set_keymap(keys.remapped())

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return theme.needed_by_textual(self.current_theme)

    async def on_mount(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.seen = self._first
        self.app_resume_signal.subscribe(self, self._resumed)
        if self._recording is not None:
            await self.push_screen(_play(self._recording, self.pace, self.ascii))
        elif self._tour:
            await self.push_screen(_tour(self.pace, self.ascii))
        elif self.seen is None:
            await self.push_screen(_launcher(self.pace, self.ascii))
        else:
            await self.push_screen(_dashboard(self.seen, self.pace, self.ascii, self._beside, *self._arranged))
        if self._note or (self._drawn is not None and not theme.is_mixed(self.theme)):
            sixteen = "--graphics: in the terminal's own sixteen colours plots are drawn in cells; --theme dark or light mix theirs"
            self.notify(self._note or sixteen, severity="warning", timeout=8, markup=False)
        self.run_worker(self.pace.run(self._draw, self._ask), name="pace")
        self.call_after_refresh(collect_from_here)

    def get_driver_class(self) -> type[Driver]:
        driver = super().get_driver_class()
        return TerminalDriver if driver is LinuxDriver else driver

    def lost_terminal(self) -> None:
        """Leave: the terminal takes no more. Called from a thread, with or without a hang-up signal beside it."""
        self.call_later(self.exit, HANGUP_STATUS)

    # -- the clock

    async def _draw(self) -> bool:
        """Draw a frame, and say whether there was anything to show."""
        shown = await self._draw_ground()
        if self._drawn is not None:
            self.call_after_refresh(self._send_pictures)
        return shown

    async def _draw_ground(self) -> bool:
        """Draw the dashboard, the tour, the launcher or what is played, whichever is uppermost, and say whether it had anything to show."""
        self.pace.moving = False
        for screen in reversed(self.screen_stack):
            if isinstance(screen, Ground):
                if not screen.is_mounted or not await screen.draw():
                    return False
                top = self.screen_stack[-1:]  # empty when the app was left meanwhile
                if top and isinstance(top[0], LivePage):
                    top[0].paint()
                return True
        return False

    def _ask(self) -> bool:
        """Put the question for the cursor's place behind the frame. A browser and a test have no terminal to ask."""
        if self.is_headless or self.is_web or self._driver is None:
            return False
        return self.call_after_refresh(self._driver.write, "\x1b[6n")

    def on_cursor_position(self, _: events.CursorPosition) -> None:
        self.pace.answered()

    def on_app_focus(self, _: events.AppFocus) -> None:
        self.pace.focused = True

    def on_app_blur(self, _: events.AppBlur) -> None:
        self.pace.focused = False

    def _display(self, screen: Screen, renderable: RenderableType | None) -> None:
        """As Textual's, but of an update only the cells that changed are sent."""
        if APPLIES and isinstance(renderable, LayoutUpdate | ChopsUpdate) and not self.is_inline:
            renderable = Difference(renderable, self._shown, (self.size.width, self.size.height))  # type: ignore[assignment]
        super()._display(screen, renderable)

    # -- plots as pixels

    def _begin_update(self) -> None:
        """As Textual's: the terminal shows nothing of what comes until all of it is there, the pictures among it."""
        super()._begin_update()
        if self._drawn is not None and self._drawn.there:
            self._take_away(self._drawn)

    def _end_update(self) -> None:
        self._send_pictures()
        super()._end_update()

    def _placed(self, pictures: "Pictures") -> "dict[int, Placed]":
        """The pictures of the plots that nothing lies over, by number."""
        from eos_tui.terminal.graphics import Placed
        from eos_tui.widgets.plot import Drawing

        screen = self.screen_stack[-1] if self.screen_stack else None
        if not isinstance(screen, Ground | Page):
            return {}
        placed, above = [], list[Region]()
        for widget, (region, clip) in screen._compositor.visible_widgets.items():  # the uppermost first
            free = region == region.intersection(clip) and not any(map(region.overlaps, above))
            if isinstance(widget, Drawing) and free and (picture := widget.pixels(pictures.graphics.cell)) is not None:
                placed.append(Placed(region.x + 1 + picture.column, region.y + 1 + picture.row, picture.rgba))
            above.append(region)
        return dict(enumerate(placed))

    def _send_pictures(self) -> None:
        """Lay the pictures of the plots over their cells, which have just been sent."""
        if self._drawn is not None and self._driver is not None and (sent := self._drawn.show(self._placed(self._drawn))):
            self._driver.write(sent)

    def _take_away(self, pictures: "Pictures") -> None:
        """Take the pictures away that are no longer where they were, before anything is drawn there."""
        placed = self._placed(pictures)
        gone = {number for number, each in pictures.there.items() if number not in placed or placed[number][:2] != each[:2]}
        self._take(pictures, gone)

    def _take(self, pictures: "Pictures", gone: set[int] | None = None) -> None:
        if (gone is None or gone) and self._driver is not None:
            self._driver.write(pictures.remove(gone))
            if not pictures.in_layers:
                self._shown.forget()
                self.screen.refresh()

    def on_resize(self, _: events.Resize) -> None:
        if self._drawn is not None:
            from eos_tui.terminal.graphics import window

            self._take(self._drawn)
            if self._driver is not None:  # a terminal may move pictures with its lines, cut them, and keep a part
                self._driver.write("\x1b[2J")
                self._shown.forget()
                self.screen.refresh()
            stream = sys.__stderr__
            cell = window(stream.fileno()) if stream is not None and not self.is_headless else None
            self._drawn.graphics = self._drawn.graphics._replace(cell=cell or self._drawn.graphics.cell)

    # -- from screen to screen

    def on_open_run(self, message: OpenRun) -> None:
        self.seen = message.run
        self.switch_screen(_dashboard(message.run, self.pace, self.ascii, message.beside, *self._arranged))

    def on_open_launcher(self, message: OpenLauncher) -> None:
        self.switch_screen(_launcher(self.pace, self.ascii, message.origin))

    def action_tour(self) -> None:
        """Begin the guided tour."""
        try:
            self.switch_screen(_tour(self.pace, self.ascii))
        except UserError as error:
            self.notify(str(error), severity="error", markup=False)

    def action_play(self) -> None:
        """Play the recording that comes with eos."""
        from eos_tui.model.recording import bundled

        self.switch_screen(_play(bundled(), self.pace, self.ascii))

    # -- keys that work anywhere

    async def action_detach(self) -> None:
        await self.pace.settle()
        self.exit(0)

    def exit(self, result: int | None = None, return_code: int = 0, message: RenderableType | None = None) -> None:
        """As Textual's, and at once."""
        if self._drawn is not None and self._driver is not None:
            self._driver.write(self._drawn.remove())
        super().exit(result, return_code, message)
        if self.way_out is not None:
            self.way_out.arm(return_code if result is None else result)

    def pressed(self, key: events.Key) -> None:
        """A key was pressed, which the thread that draws may never hear of. Called from a thread."""
        written = self.focused is not None and self.focused.check_consume_key(key.key, key.character)  # in a prompt
        if self.way_out is not None and not written and any(key.key in each.keys.split(",") for each in keys.leaving()):
            self.way_out.look()

    def action_suspend_process(self) -> None:
        """Stop here and give the terminal back, as Textual does it, where there is a shell to go on from."""
        if self.is_headless or self.is_web:
            self.notify("Only in a terminal can eos be suspended.", severity="warning", timeout=3)
        else:
            if self._drawn is not None:
                self._take(self._drawn)
            super().action_suspend_process()

    def _resumed(self, _: object) -> None:
        """The terminal is ours again, with whatever the shell left on it."""
        self.action_redraw()
        self.pace.hurry()

    def action_redraw(self) -> None:
        self._shown.forget()
        if self._drawn is not None:
            self._take(self._drawn)
        self.screen.refresh()

    def action_keys(self) -> None:
        from eos_tui.screens.help import Help

        self.push_screen(Help(place_of(self.screen)))

    def action_next_theme(self) -> None:
        names = [each.name for each in theme.THEMES]
        self.theme = names[(names.index(self.theme) + 1) % len(names)] if self.theme in names else names[0]
        self.pace.hurry()

    def action_screenshot_files(self) -> None:
        """Save the screen as SVG, ANSI and text in the folder of pictures, else beside the runs."""
        run = self.seen.name if self.seen else type(self.screen).__name__.lower()
        stem = f"eos-{run}-{time.strftime('%Y%m%d-%H%M%S')}"
        try:
            folder = folders.pictures(self.pictures)
            if not self.pictures and not can_be_written(folder):  # as for a user without a home folder
                folder = store.home() / "screenshots"
        except (OSError, UserError) as error:
            self.notify(f"the screenshot could not be saved: {error}", severity="error", markup=False)
            return
        try:
            files = screenshot.screen(self, f"eos · {run}").save(folder / stem)
        except OSError as error:
            self.notify(f"{folder}: the screenshot could not be saved ({error.strerror})", severity="error", markup=False)
        else:
            self.notify(screenshot.names(files), title="screenshot saved", markup=False)

    def action_copy_values(self) -> None:
        """Copy what the screen offers to copy, else its text."""
        offered = getattr(self.screen, "clipping", None)
        text = offered() if offered else screenshot.screen(self, "eos").txt
        try:
            self.notify(clipboard.copy(text, self.copy_to_clipboard), title="copied", markup=False)
        except OSError as error:
            self.notify(f"{error.filename}: could not be written ({error.strerror})", severity="error", markup=False)
        except UserError as error:
            self.notify(str(error), severity="error", markup=False)
