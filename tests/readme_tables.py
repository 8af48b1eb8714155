"""The README's generated tables: presets, keys and notation. `python tests/readme_tables.py` prints them to paste."""

from engine.columns import ACCURACY, COUPLED, DESCENT, NORM, TEST, predicted
from engine.spec import load_spec, preset_names
from eos_tui.keys import markdown


def presets() -> str:
    """A row for each preset: its name, its title and how long it takes."""
    rows = [(name, load_spec(name)) for name in preset_names()]
    return "\n".join(f"| `{name}` | {spec.title}; {spec.takes} |" for name, spec in rows)


def keys() -> str:
    """The key table of the app."""
    return markdown().strip()


def notation() -> str:
    """A row for each quantity of the paper that a run records."""
    found = [column for column in (*DESCENT, *COUPLED, *predicted("generalized")[:2], *ACCURACY, *TEST, *NORM) if column.source != "eos"]
    return "\n".join(f"| {column.symbol} | `{column.name}` | {column.formula.replace('|', chr(92) + '|')} |" for column in found)


if __name__ == "__main__":
    print(presets(), keys(), notation(), sep="\n\n")
