"""The README's generated tables: presets, keys and notation. `PYTHONPATH=. python tests/readme_tables.py` writes them anew."""

from pathlib import Path

from engine.record.columns import ACCURACY, ASSUMPTIONS, COUPLED, DESCENT, LANDSCAPE, NORM, TEST, THEOREM, UNROLLED, predicted
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
    recorded = (*DESCENT, *COUPLED, *ASSUMPTIONS, *predicted("generalized")[:2], *THEOREM, *UNROLLED, *LANDSCAPE, *ACCURACY, *TEST, *NORM)
    found = [column for column in recorded if column.source != "eos"]
    rows = ((column.symbol, f"`{column.name}`", column.formula) for column in found)
    return "\n".join("| " + " | ".join(cell.replace("|", chr(92) + "|") for cell in row) + " |" for row in rows)


README = Path(__file__).parent.parent / "README.md"
TABLES = {"| preset | what it shows |": presets, "| key |": keys, "| symbol |": notation}
"""What makes each table, by how its head begins."""


def rewrite() -> None:
    """Replace the rows of each table in the README."""
    blocks = README.read_text(encoding="utf-8").split("\n\n")
    for at, block in enumerate(blocks):
        for head, rows in TABLES.items():
            if block.startswith(head):
                fresh = rows()
                blocks[at] = fresh if fresh.startswith(head) else "\n".join([*block.splitlines()[:2], fresh])
    README.write_text("\n\n".join(blocks), encoding="utf-8")


if __name__ == "__main__":
    rewrite()
