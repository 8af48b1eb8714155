"""The presets as the launcher shows them: in groups, each with how long it takes in a word."""

import re
from collections.abc import Iterable

from engine.spec import Words

FIRST = "fashion"
"""The preset chosen at first, and that of `eos demo`."""
TIME = 8
"""Columns of the word for how long one takes."""
WAYS: dict[str, Words] = {
    "tour": Words("The guided tour", "The paper in twelve steps, on real runs that wait for you.", "about five minutes"),
    "play": Words("A recorded run, in motion", "Sharpness, x and the portrait, with a caption for each stage; no engine.", "half a minute"),
}
"""Ways to begin that are no preset, by the action of the app."""
OPTIMIZERS = ("adam", "adam-small-step", "momentum", "nesterov", "rmsprop", "sam", "sign")
"""Presets of another optimizer than gradient descent."""
START, EXPERIMENTS, OTHER_OPTIMIZERS, FIGURES, APPENDIX = "start here", "experiments", "optimizers", "figures", "appendix: wants a GPU"
GROUPS = (START, EXPERIMENTS, OTHER_OPTIMIZERS, FIGURES, APPENDIX)

_AMOUNTS = {
    "a few": "few", "some": "few", "half": "½", "three quarters of": "¾", "a quarter of": "¼", "a": "1", "an": "1", "two": "2",
    "three": "3", "four": "4", "five": "5", "ten": "10", "fifteen": "15", "twenty": "20",
}  # fmt: skip
_UNITS = {"s": "s", "second": "s", "minute": "min", "hour": "h", "day": "day", "week": "week"}
_DURATION = re.compile(
    r"\b(?:(?P<under>under) )?(?:(?P<amount>\d+|a few|some|half|three quarters of|a quarter of|two|three|four|five|ten|fifteen|twenty|an?)"
    r"(?: an?)?(?: to \d+| or two| or more)? )?(?P<unit>instant|s|second|minute|hour|day|week)(?P<many>s?)\b"
)


def group_of(name: str) -> str:
    """The group of a preset, or of another way to begin."""
    if name in WAYS or name == FIRST:
        return START
    if name in OPTIMIZERS:
        return OTHER_OPTIMIZERS
    return FIGURES if name.startswith("fig") else APPENDIX if name.startswith("appendix") else EXPERIMENTS


def grouped(names: Iterable[str]) -> dict[str, list[str]]:
    """Names by group. Of what is there in miniature too, that comes first."""
    groups: dict[str, list[str]] = {group: [] for group in GROUPS}
    for name in [*WAYS, *sorted(names, key=lambda name: (name.removesuffix("-small"), not name.endswith("-small")))]:
        groups[group_of(name)].append(name)
    return {group: held for group, held in groups.items() if held}


def lasting(takes: str) -> str:
    """How long a preset takes, in a word, from its own sentence: to its end, and on a GPU where that is what it is estimated for."""
    on_gpu = next((part for part in re.split("[,;:]", takes) if "GPU" in part), "") if takes.startswith("estimated") else ""
    said = _DURATION.search(on_gpu or takes.partition(" steps ")[2] or takes)
    if said is None:
        return ""
    if said["unit"] == "instant":
        return "at once"
    unit, amount = _UNITS[said["unit"]], _AMOUNTS.get(said["amount"] or "", said["amount"])
    many = "s" if unit in ("day", "week") and (said["many"] or amount == "few") else ""
    text = f"{'<' if said['under'] else ''}{amount} {unit}{many}" if amount else f"{unit}{many}"
    return f"GPU {text.removeprefix('few ')}" if on_gpu else text
