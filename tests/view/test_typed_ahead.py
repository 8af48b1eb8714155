"""Keys that come at once with the one that opens what they are meant for."""

import pytest
from textual import events
from textual.binding import Binding
from textual.widgets import Static

from eos_tui.screens.prompts import Ask, a_count
from eos_tui.terminal.typed_ahead import TypedAhead

from piloting import until


class Asking(TypedAhead[int]):
    BINDINGS = [Binding("S", "ask", "ask")]  # noqa: RUF012
    answer: int | None = None
    answered = False

    def compose(self):
        yield Static("nothing here takes a digit")

    def action_ask(self):
        def take(answer):
            self.answer, self.answered = answer, True

        self.push_screen(Ask("advance", "Steps to take, then pause.", a_count(1), "100"), take)


@pytest.mark.parametrize(("typed", "answer"), [(("2", "5", "enter"), 25), (("enter",), 100), (("7", "escape"), None)])
async def test_a_number_that_comes_at_once_with_the_key_that_asks_for_it_is_the_answer(typed, answer):
    app = Asking()
    async with app.run_test():
        for key in ("S", *typed):
            app.post_message(events.Key(key, key if len(key) == 1 else None))
        await until(lambda: app.answered)
    assert app.answer == answer
