"""How figures look on paper, in one place: eos' style, a style file of the user's over it, and LaTeX. matplotlib is loaded when used."""

import logging
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.errors import UserError, meant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {  # its keys are literals to mypy
    "font.size": 10, "axes.titlesize": 10, "axes.labelsize": 10, "legend.fontsize": 8.5, "xtick.labelsize": 9, "ytick.labelsize": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.6,
    "lines.linewidth": 1.1, "legend.frameon": False, "figure.constrained_layout.use": True, "svg.hashsalt": "eos",
    "axes.titlelocation": "left", "axes.axisbelow": True, "svg.fonttype": "none", "pdf.fonttype": 42,
}  # fmt: skip
"""Text is text in SVG and PDF, to be searched, and edited in a drawing program."""
SIZES = ("font.size", "axes.titlesize", "axes.labelsize", "legend.fontsize", "xtick.labelsize", "ytick.labelsize")
FALLBACK = "DejaVu Sans"
"""Comes with matplotlib and has every symbol of the labels: for those that a chosen font lacks."""

LATEX_PROGRAMS = ("latex", "dvipng")
SYMBOLS = {
    "α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "δ": r"\delta", "ε": r"\epsilon", "η": r"\eta", "θ": r"\theta", "λ": r"\lambda",
    "ν": r"\nu", "π": r"\pi", "ρ": r"\rho", "σ": r"\sigma", "τ": r"\tau", "Δ": r"\Delta", "Θ": r"\Theta", "Λ": r"\Lambda",
    "Σ": r"\Sigma", "∇": r"\nabla", "†": r"^\dagger", "⋆": r"^\star", "′": "'", "²": "^2", "³": "^3", "⁴": "^4", "⁺": "^+", "ᵗ": "^t",
    "ᵀ": r"^{\mathsf T}", "ᵤ": "_u", "₀": "_0", "½": r"\tfrac12", "⊥": r"^\perp", "‖": r"\|", "⟨": r"\langle", "⟩": r"\rangle",
    "·": r"\cdot", "×": r"\times", "±": r"\pm", "≤": r"\le", "≥": r"\ge", "≈": r"\approx", "√": r"\surd", "∑": r"\sum", "−": "-",
    "←": r"\leftarrow", "→": r"\to", "∂": r"\partial", "∞": r"\infty", "∈": r"\in",
}  # fmt: skip
"""What LaTeX writes for the symbols of labels, in mathematics. It has … and – by itself."""
BARRED = re.compile("(.)\N{COMBINING MACRON}")
ESCAPED = re.compile(r"[%&#{}]")


def read_style(file: Path) -> dict[Any, Any]:
    """The settings of a matplotlib style file. Raises UserError for what matplotlib would pass over with a warning: a line that is no
    setting, a name that there is not, a value that is none, and what is no matter of style.
    """
    import matplotlib
    import matplotlib.style

    def refuse(record: logging.LogRecord) -> bool:
        near = meant(record.args["key"], matplotlib.rcParams) if isinstance(record.args, dict) and "key" in record.args else ""
        line = record.getMessage().strip().splitlines()[0]
        raise UserError(f"--style {line}{near}; expected `name: value`")

    log = logging.getLogger("matplotlib")
    log.addFilter(refuse)
    try:
        if not file.is_file():
            raise UserError(f"--style {file}: no such file; expected a matplotlib style file, with lines such as `font.size: 8`")
        read = matplotlib.rc_params_from_file(str(file.absolute()), fail_on_error=True, use_default_template=False)
        settings: dict[Any, Any] = dict(read)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            with matplotlib.style.context(settings):
                pass
    except (OSError, ValueError, UserWarning) as error:  # a bad value, bytes that are no text, and what is no matter of style
        raise UserError(f"--style {file}: {' '.join(str(error).split())}") from None
    finally:
        log.removeFilter(refuse)
    return settings


@contextmanager
def in_style(settings: dict[str, Any] | None = None, latex: bool = False, scale: float = 1.0) -> Iterator[None]:
    """matplotlib's settings while figures are made and saved: eos' own, its text at `scale`, under those of a style file. Raises UserError
    where LaTeX is asked for and there is none.
    """
    import matplotlib

    chosen: dict[Any, Any] = STYLE | {name: STYLE[name] * scale for name in SIZES} | (settings or {})
    latex = latex or chosen.get("text.usetex", False)
    if latex:
        need_latex()
        letters = "".join(rf"\DeclareUnicodeCharacter{{{ord(mark):04X}}}{{\ensuremath{{{{}}{code}}}}}" for mark, code in SYMBOLS.items())
        chosen |= {"text.usetex": True, "text.latex.preamble": r"\usepackage{amsmath}" + letters + chosen.get("text.latex.preamble", "")}
    with matplotlib.rc_context(chosen):
        families = matplotlib.rcParams["font.family"]
        matplotlib.rcParams["font.family"] = [*families, *(() if FALLBACK in families or latex else (FALLBACK,))]
        yield


def need_latex() -> None:
    """Raises UserError where a program that LaTeX' text takes is not on the path."""
    for program in LATEX_PROGRAMS:
        if shutil.which(program) is None:
            raise UserError(
                f"--latex, or text.usetex of the style: `{program}` is not on the path; install TeX Live (on Debian: apt install "
                "texlive-latex-extra cm-super dvipng), or leave it out"
            )


def escape(canvas: "Figure") -> None:
    """Make the marks that LaTeX has for itself ordinary ones in every text of a figure, where LaTeX sets it."""
    from matplotlib.text import Text

    for text in canvas.findobj(Text):
        assert isinstance(text, Text)
        if text.get_usetex() and "$" not in text.get_text():
            escaped = ESCAPED.sub(lambda mark: "\\" + mark[0], text.get_text())
            text.set_text(BARRED.sub(lambda mark: rf"\ensuremath{{\bar{{{mark[1]}}}}}", escaped))
