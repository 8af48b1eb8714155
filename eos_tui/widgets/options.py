"""A list to choose from that keeps its head in a terminal too small to show a line of it."""

from textual.widgets import OptionList


class Options(OptionList):
    """As Textual's, whose keys for a page raise KeyError where no line was laid out."""

    def action_page_up(self) -> None:
        if self.scrollable_content_region.area:
            super().action_page_up()

    def action_page_down(self) -> None:
        if self.scrollable_content_region.area:
            super().action_page_down()
