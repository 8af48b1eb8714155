"""Two questions: one for a number, one for yes or no."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from engine.base.errors import UserError
from engine.record.threshold import at_rate

TENTH = 1.1
"""Factor of one step of η."""


class Ask(ModalScreen[Any]):
    """Asks for a line of text. `parse` turns it into the answer, or raises UserError with what would do."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "cancel")]

    FOOT = "enter accepts · esc cancels"

    def __init__(self, title: str, hint: str, parse: Callable[[str], Any], value: str = ""):
        super().__init__()
        self._title, self._hint, self._parse, self._value = title, hint, parse, value

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog", can_focus=False) as dialog:
            dialog.border_title = self._title
            yield Static(self._hint, id="hint", markup=False)
            yield Input(self._value, select_on_focus=True)
            yield Static("", id="error", markup=False)
            yield Static(self.FOOT, classes="quiet")

    @on(Input.Changed)
    def _forget(self) -> None:
        self.query_one("#error", Static).update("")

    @on(Input.Submitted)
    def _accept(self, message: Input.Submitted) -> None:
        try:
            self.dismiss(self._parse(message.value.strip()))
        except UserError as error:
            self._refuse(error)

    def _refuse(self, error: UserError) -> None:
        """Say what is wrong, where it is seen: in a small terminal the dialog is scrolled to it."""
        line = self.query_one("#error", Static)
        line.update(str(error))
        self.call_after_refresh(line.scroll_visible, animate=False)


class AskLearningRate(Ask):
    """Asks for η; the arrows make it larger and smaller, and the threshold is shown as it changes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,right_curly_bracket", "scale(1)", "larger", priority=True),
        Binding("down,left_curly_bracket", "scale(-1)", "smaller", priority=True),
    ]
    FOOT = "↑ ↓ a tenth more or less · enter sets it · esc cancels"

    def __init__(self, now: float, threshold: float, steps: int = 0):
        """`threshold` is that of the learning rate now; NaN where there is no row yet."""
        super().__init__("learning rate η", "", a_learning_rate, f"{now * TENTH**steps:.6g}" if steps else f"{now:.6g}")
        self._now, self._threshold = now, threshold

    @on(Input.Changed)
    def _tell(self, message: Input.Changed) -> None:
        hint = f"Now η = {self._now:.6g}."
        if math.isfinite(self._threshold):
            try:
                then = f"{at_rate(self._threshold, self._now, a_learning_rate(message.value.strip())):.6g}"
            except UserError:
                then = "–"
            hint = f"Now η = {self._now:.6g} and 2/η = {self._threshold:.6g}; with this η it is {then}."
        self.query_one("#hint", Static).update(hint)

    def action_scale(self, steps: int) -> None:
        entry = self.query_one(Input)
        try:
            entry.value = f"{a_learning_rate(entry.value.strip()) * TENTH**steps:.6g}"
            entry.cursor_position = len(entry.value)  # what was selected is gone
        except UserError as error:
            self._refuse(error)


class Confirm(ModalScreen[bool]):
    """Asks yes or no; anything but `y` is no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", "yes"),
        Binding("n,escape,enter,q", "dismiss(False)", "no"),
    ]

    def __init__(self, title: str, question: str):
        super().__init__()
        self._title, self.question = title, question

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog", can_focus=False) as dialog:
            dialog.border_title = self._title
            yield Static(self.question, markup=False)
            yield Static("y yes · n no", classes="quiet")


def a_count(least: int) -> Callable[[str], int]:
    """Reads a whole number of at least `least`."""

    def parse(text: str) -> int:
        plain = text.replace(",", "").replace("_", "")
        if not plain.isascii() or not plain.isdigit() or not least <= int(plain) <= 10**9:
            raise UserError(f"{text or 'nothing'}: expected a whole number from {least} to 1,000,000,000")
        return int(plain)

    return parse


def a_learning_rate(text: str) -> float:
    """Reads η > 0."""
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"{text or 'nothing'}: expected a number, as in 0.02") from None
    if not 0 < value <= 1e12:
        raise UserError(f"{text}: η must be greater than 0, and finite")
    return value
