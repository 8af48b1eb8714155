"""Colours as roles: every trajectory keeps its colour in every plot, legend and table.

The hues begin from Okabe and Ito's palette for colour-blind readers, moved until any two trajectories stay apart under
simulated protanopia, deuteranopia and tritanopia and all stand out from the ground. The `eos-ansi` theme names the terminal's
own sixteen colours, for terminals without more and for NO_COLOR. Screens use the roles as `$gd`, `$threshold`, … in CSS and
markup; plots take ready styles from `role_style`.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from rich.color import Color as RichColor
from rich.style import Style
from rich.terminal_theme import SVG_EXPORT_THEME, TerminalTheme
from textual.color import Color
from textual.theme import BUILTIN_THEMES, Theme

DARK, LIGHT, ANSI = "eos-dark", "eos-light", "eos-ansi"
DEFAULT = DARK

class Colours(NamedTuple):
    """The colour of a role on a dark ground, on a light one, and of the terminal's own sixteen."""

    dark: str
    light: str
    terminal: str


class Family(NamedTuple):
    """A trajectory as plots show it: its columns are `name.loss`, `name.sharpness`, … where a run records them."""

    label: str
    """Its name in a legend."""
    colours: Colours
    predicted: bool = False
    """Whether it is a form of the predicted dynamics: dashed, and drawn where the key for predictions chooses it."""
    companion: bool = False
    """Whether it may run off the scale rather than flatten the other curves: a prediction that overflows, or gradient flow."""
    on_threshold: bool = False
    """Whether its sharpness lies on the threshold, which is drawn anyway."""


FAMILIES: dict[str, Family] = {
    "gd": Family("gradient descent", Colours("#5db2ee", "#0a84e8", "ansi_cyan")),
    "constrained": Family("constrained θ†", Colours("#1fd890", "#00704c", "ansi_green"), on_threshold=True),
    "generalized": Family("generalized", Colours("#f0dc32", "#5f4400", "ansi_yellow"), predicted=True, companion=True),
    "transported": Family("transported", Colours("#e3e7ee", "#2f3a48", "ansi_default"), predicted=True, companion=True),
    "code": Family("code", Colours("#8463ea", "#3f2fd0", "ansi_bright_blue"), predicted=True, companion=True),
    "flow": Family("gradient flow", Colours("#b9779c", "#bd6aa2", "ansi_magenta"), companion=True),
    "central": Family("central flow", Colours("#9f00ff", "#8c008c", "ansi_blue"), on_threshold=True),
}
"""The trajectories. A row here is all that a new one needs to be drawn, beside the columns that its runs record."""

ROLES: dict[str, Colours] = {
    **{name: family.colours for name, family in FAMILIES.items()},
    "threshold": Colours("#ee5a2f", "#e2440f", "ansi_bright_red"),  # the stability threshold 2/η
    "muted": Colours("#7d8896", "#727b87", "ansi_bright_black"),  # axes, ticks, captions
    "good": Colours("#4fc08d", "#17784f", "ansi_bright_green"),  # as the theory wants it
    "warn": Colours("#e6a23c", "#96600a", "ansi_bright_yellow"),  # worth a look
    "bad": Colours("#f2545b", "#c21f33", "ansi_red"),  # broken or lost
}

_PALETTES: dict[str, dict[str, str]] = {
    theme: {role: colours[k] for role, colours in ROLES.items()} for k, theme in enumerate((DARK, LIGHT, ANSI))
}
"""The terminal's sixteen colours are the darker half where they can be, for its ground may be black or white."""


def _highlight(ground: str, blurred: str, text: str) -> dict[str, str]:
    """The variables of the highlighted line of a list: a ground on which the roles' colours can be read, too."""
    return {"block-cursor-background": ground, "block-cursor-foreground": text, "block-cursor-blurred-background": blurred,
            "block-cursor-blurred-foreground": text}


def _scrollbar(bar: str, moved: str, ground: str) -> dict[str, str]:
    """The variables of scroll bars, quiet until they are moved."""
    grounds = dict.fromkeys(("scrollbar-background", "scrollbar-background-hover", "scrollbar-background-active"), ground)
    return {"scrollbar": bar, "scrollbar-hover": moved, "scrollbar-active": moved, "scrollbar-corner-color": ground, **grounds}


THEMES: tuple[Theme, ...] = (
    Theme(
        name=DARK, dark=True, primary="#5db2ee", secondary="#1fd890", accent="#ee5a2f", warning="#e6a23c", error="#f2545b",
        success="#4fc08d", foreground="#d7dce2", background="#12161c", surface="#171c24", panel="#1f2630",
        variables={
            **_PALETTES[DARK], "text-muted": "#7d8896", "footer-key-foreground": "#5db2ee", "border-blurred": "#333d4a",
            **_highlight("#1f4060", "#1b2838", "#f2f5f8"),
            **_scrollbar("#333d4a", "#5db2ee", "#171c24"),
        },
    ),
    Theme(
        name=LIGHT, dark=False, primary="#0a84e8", secondary="#00704c", accent="#e2440f", warning="#96600a", error="#c21f33",
        success="#17784f", foreground="#22272e", background="#f7f6f2", surface="#fdfcf9", panel="#ebe8e1",
        variables={
            **_PALETTES[LIGHT], "text-muted": "#727b87", "footer-key-foreground": "#0a84e8", "border-blurred": "#cfcabf",
            **_highlight("#bcdcf7", "#e3e9ed", "#0c1116"),
            **_scrollbar("#cfcabf", "#0a84e8", "#fdfcf9"),
        },
    ),
    Theme(
        name=ANSI, dark=True, ansi=True, primary="ansi_cyan", secondary="ansi_green", accent="ansi_bright_red",
        warning="ansi_bright_yellow", error="ansi_red", success="ansi_bright_green", foreground="ansi_default",
        background="ansi_default", surface="ansi_default", panel="ansi_default", boost="ansi_default",
        variables={
            **BUILTIN_THEMES["ansi-dark"].variables, **_PALETTES[ANSI], "text-muted": "ansi_bright_black",
            "border-blurred": "ansi_bright_black", "footer-key-foreground": "ansi_cyan",
            **_highlight("ansi_default", "ansi_default", "ansi_default"),  # no ground of sixteen suits every role's colour
            "block-cursor-text-style": "bold underline", "block-cursor-blurred-text-style": "underline",
            **_scrollbar("ansi_bright_black", "ansi_cyan", "ansi_default"),
        },
    ),
)

CHOICES: dict[str, str] = {"dark": DARK, "light": LIGHT, "terminal": ANSI}
"""What the settings call the themes."""


def chosen(choice: str, colors: bool, environment: Mapping[str, str]) -> str:
    """The theme for a choice of the settings. `auto` asks what the terminal can and, where it says so, its ground."""
    if choice in CHOICES:
        return CHOICES[choice]
    if not colors or "NO_COLOR" in environment:
        return ANSI
    ground = environment.get("COLORFGBG", "").rpartition(";")[2]
    return LIGHT if ground in ("7", "15") else DARK


def needed_by_textual(theme: Theme) -> dict[str, str]:
    """What Textual's own widgets want of a sixteen-colour theme beyond ours."""
    return BUILTIN_THEMES["ansi-dark"].variables if theme.ansi else {}


def is_mixed(theme_name: str) -> bool:
    """Whether a theme's colours are mixed of red, green and blue, rather than the terminal's own sixteen."""
    return _base(theme_name) != ANSI


def surface(theme_name: str) -> RichColor:
    """The ground that plots lie on, in a theme of mixed colours."""
    return RichColor.parse(next(theme for theme in THEMES if theme.name == _base(theme_name)).background or "black")


_FADES = {0: 1.0, 1: 0.58, 2: 0.34}
"""How much of a role's colour is left at each age, the rest being background."""


def role_color(theme_name: str, role: str) -> str:
    """The colour of a role in a theme, as Textual reads it. A theme of Textual's own gets our dark or light palette."""
    return _PALETTES[_base(theme_name)][role]


@lru_cache(maxsize=512)
def role_style(theme_name: str, role: str, age: int = 0, bold: bool = False) -> Style:
    """The style of a role for plots; `age` 1 and 2 fade it towards the background."""
    base = _base(theme_name)
    name = _PALETTES[base][role]
    if base == ANSI:  # sixteen colours cannot be mixed: brightness is an attribute
        return Style(color=name.removeprefix("ansi_"), bold=bold or None, dim=age > 0 or None)
    ground = next(theme for theme in THEMES if theme.name == base).background
    mixed = Color.parse(ground or name).blend(Color.parse(name), _FADES[age])
    return Style(color=RichColor.from_rgb(*mixed.rgb), bold=bold or None)


@lru_cache(maxsize=64)
def banner_style(theme_name: str, role: str) -> Style:
    """Words on a ground of a role's colour, to be seen from afar."""
    base = _base(theme_name)
    if base == ANSI:
        return Style(color=_PALETTES[base][role].removeprefix("ansi_"), reverse=True, bold=True)
    ground = next(theme for theme in THEMES if theme.name == base).background
    return Style(color=RichColor.parse(ground or "black"), bgcolor=RichColor.parse(_PALETTES[base][role]), bold=True)


@lru_cache(maxsize=64)
def role_ground(theme_name: str, role: str, share: float) -> Style | None:
    """A background of so much of a role's colour, the rest being the theme's own; None of sixteen colours, which cannot be mixed."""
    base = _base(theme_name)
    if base == ANSI:
        return None
    ground = next(theme for theme in THEMES if theme.name == base).background
    mixed = Color.parse(ground or "black").blend(Color.parse(_PALETTES[base][role]), share)
    return Style(bgcolor=RichColor.from_rgb(*mixed.rgb))


@lru_cache(maxsize=8)
def picture_theme(theme_name: str) -> TerminalTheme:
    """The ground and the colour of plain text in a picture; of sixteen colours, those that Rich's pictures have."""
    theme = next(theme for theme in THEMES if theme.name == _base(theme_name))
    if theme.ansi:
        return SVG_EXPORT_THEME
    ground, text = (Color.parse(color).rgb for color in (theme.background or "black", theme.foreground or "white"))
    sixteen = SVG_EXPORT_THEME.ansi_colors._colors
    return TerminalTheme(ground, text, list(sixteen[:8]), list(sixteen[8:]))


def _base(theme_name: str) -> str:
    """Which of our palettes serves a theme."""
    if theme_name in _PALETTES:
        return theme_name
    other = BUILTIN_THEMES.get(theme_name)
    if other is None or (other.dark and not other.ansi):
        return DARK
    return ANSI if other.ansi else LIGHT
