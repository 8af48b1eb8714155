"""Keys that come at once with the one that opens what they are meant for."""

import pytest
from textual import events
from textual.binding import Binding
from textual.widgets import Static

from eos_tui.screens.prompts import Ask, AskLearningRate, a_count
from eos_tui.terminal.typed_ahead import TypedAhead

from piloting import until


class Asking(TypedAhead[int]):
    BINDINGS = [Binding("S", "ask", "ask"), Binding("e", "ask_rate", "ask")]  # noqa: RUF012
    answer: int | None = None
    answered = False

    def compose(self):
        yield Static("nothing here takes a digit")

    def take(self, answer):
        self.answer, self.answered = answer, True

    def action_ask(self):
        self.push_screen(Ask("advance", "Steps to take, then pause.", a_count(1), "100"), self.take)

    def action_ask_rate(self):
        self.push_screen(AskLearningRate(0.5, 4.0), self.take)


@pytest.mark.parametrize(("typed", "answer"), [
    (("S", "2", "5", "enter"), 25), (("S", "enter"), 100), (("S", "7", "escape"), None), (("e", "0", ".", "2", "enter"), 0.2),
    (("e", "up", "enter"), 0.55),
])
async def test_a_number_that_comes_at_once_with_the_key_that_asks_for_it_is_the_answer(typed, answer):
    app = Asking()
    async with app.run_test():
        for key in typed:
            app.post_message(events.Key("full_stop" if key == "." else key, key if len(key) == 1 else None))
        await until(lambda: app.answered)
    assert app.answer == answer
