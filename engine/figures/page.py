"""What a figure is to be on paper: its style, its width, its formats. Read from words, and refused before hours of work."""

import re
import textwrap
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.base.errors import UserError, meant, one_of
from engine.report.style import need_latex, read_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas
    from matplotlib.legend import Legend
    from matplotlib.text import Text

FORMATS = ("svg", "png", "pdf")
INCHES = {"in": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4}
NARROWEST, WIDEST = 1.0, 20.0
"""Inches of a figure."""
FEWEST, MOST = 30, 1200
"""Dots per inch."""
DOTS_PER_INCH = 110
PLOT = 0.4
"""Inches that a plot has at least, either way."""
TIED = "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"
SMALLEST = 0.6
"""The text of eos' own style shrinks with a figure, but not below this share: 6 pt and 5 pt."""


class Page(NamedTuple):
    """How a figure is drawn and written."""

    style: dict[str, Any] | None = None
    """The settings of a style file."""
    file: Path | None = None
    width: float | None = None
    """Inches; None leaves each figure its own."""
    width_words: str = ""
    dpi: int | None = None
    formats: tuple[str, ...] = ("svg", "png")
    latex: bool = False

    def text_scale(self, natural: float) -> float:
        """What eos' own text is multiplied by in a figure of this width by nature; a style file has the sizes of its own."""
        return 1.0 if self.width is None else min(1.0, max(self.width / natural, SMALLEST))

    def dots_per_inch(self) -> float:
        """Of pixels: as asked for, else as the style file says, else eos' own."""
        dots = self.dpi or (self.style or {}).get("savefig.dpi", DOTS_PER_INCH)
        return DOTS_PER_INCH if dots == "figure" else dots

    def facts(self) -> dict[str, Any]:
        """What a manifest says of it."""
        settings = {name: str(value) for name, value in (self.style or {}).items()}
        return {
            "style": None if self.file is None else {"file": self.file.name, "settings": settings}, "width_inches": self.width,
            "dots_per_inch": self.dots_per_inch() if "png" in self.formats else None, "latex": self.latex,
        }  # fmt: skip


AS_IT_IS = Page()
"""Nothing asked for."""


def page(
    style: Path | None = None, width: str | None = None, dpi: int | None = None, formats: str | None = None, latex: bool = False
) -> Page:
    """A page from what a user says. Raises UserError with what would do."""
    require_matplotlib()
    chosen = _formats(formats) if formats is not None else AS_IT_IS.formats
    if dpi is not None and not FEWEST <= dpi <= MOST:
        raise UserError(f"--dpi {dpi}: expected dots per inch from {FEWEST} to {MOST}")
    if dpi is not None and "png" not in chosen:
        raise UserError(f"--dpi {dpi}: {' and '.join(chosen)} have no dots; add png to --format, or leave --dpi out")
    if latex:
        need_latex()
    settings = None if style is None else read_style(style)
    if settings and settings.get("text.usetex"):
        need_latex()
    return Page(settings, style, None if width is None else inches(width), width or "", dpi, chosen, latex)


def require_matplotlib() -> None:
    """Raises UserError where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise UserError("figures are drawn by matplotlib, which is not installed; pip install 'eos-tui[figures]' brings it")


def inches(width: str) -> float:
    """A width in inches, from `5.5in`, `84mm` or `8.4cm`. Raises UserError."""
    read = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(in|cm|mm)\s*", width)
    if read is None:
        raise UserError(f"--width {width}: expected a length with its unit, as in 5.5in, 84mm or 8.4cm")
    value = float(read[1]) * INCHES[read[2]]
    if not NARROWEST <= value <= WIDEST:
        low, high = (f"{bound / INCHES[read[2]]:.4g}{read[2]}" for bound in (NARROWEST, WIDEST))
        raise UserError(f"--width {width}: expected a width from {low} to {high}")
    return value


def _formats(words: str) -> tuple[str, ...]:
    names = [name.strip() for name in words.split(",") if name.strip()]
    for name in names or [words]:
        if name not in FORMATS:
            raise UserError(f'--format {words}: "{name}" is none{meant(name, FORMATS)}; expected some of {one_of(FORMATS)}, as in pdf,png')
    return tuple(dict.fromkeys(names))


def at_width(canvas: "Canvas", page: Page) -> None:
    """Make a figure as wide as the page says. Its height keeps the proportion, but shrinks no more than its text has, and what is too long
    for its place is broken into lines. Raises UserError where nothing would be left of the plots.
    """
    import matplotlib

    assert page.width is not None
    natural, height = canvas.get_size_inches()
    text = matplotlib.rcParams["font.size"] / 10
    canvas.set_size_inches(page.width, height * max(page.width / natural, min(1, text)))
    for legend in list(canvas.legends):
        _narrowed(canvas, legend)
    for _ in range(2):  # titles of several lines take from the plots, whose labels then have less room
        _lay_out(canvas)
        for axes in canvas.axes:
            box = axes.get_window_extent()
            for title in (axes.title, axes._left_title, axes._right_title, axes.xaxis.label):  # type: ignore[attr-defined]
                _break(title, box.width)
            _break(axes.yaxis.label, box.height)
        if canvas._suptitle is not None:  # type: ignore[attr-defined]
            _break(canvas._suptitle, canvas.bbox.width)  # type: ignore[attr-defined]
    if not _lay_out(canvas):
        raise UserError(f"--width {page.width_words}: too narrow for the plots that stand side by side and their labels; expected a larger "
                        "one, or smaller text by --style FILE, with lines such as `font.size: 6`")


def _lay_out(canvas: "Canvas") -> bool:
    """Place everything; whether each plot has `PLOT` inches at least."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "constrained_layout not applied")
        try:
            canvas.draw_without_rendering()
        except UserWarning:  # there is no room at all
            return False
    boxes = [axes.get_window_extent() for axes in canvas.axes]
    return all(min(box.width, box.height) >= PLOT * canvas.dpi for box in boxes)


def _break(text: "Text", room: float) -> None:
    """Break a text into lines of at most so many pixels, as far as its words allow."""
    words, box = text.get_text(), text.get_window_extent()
    length = max(box.width, box.height) if text.get_rotation() else box.width
    longest = max(map(len, words.splitlines()), default=0)
    if words and length > room:
        whole = " ".join(words.split()).replace(" = ", TIED)
        text.set_text(textwrap.fill(whole, max(int(longest * room / length), 8), break_long_words=False).replace(TIED, " = "))


def _narrowed(canvas: "Canvas", legend: "Legend") -> None:
    """The legend outside the plots with as many columns as there is room for."""
    handles, labels = [handle for handle in legend.legend_handles if handle is not None], [text.get_text() for text in legend.get_texts()]
    columns = len(labels)
    while (box := legend.get_tightbbox()) is not None and box.width > canvas.bbox.width and columns > 1:
        columns -= 1
        legend.remove()
        legend = canvas.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=legend.handlelength)
