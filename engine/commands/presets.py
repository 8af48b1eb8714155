"""The commands on presets: list those that ship with eos, show one as it is written."""

import shutil
import textwrap

from cyclopts import App

from engine.base.text import print_json
from engine.commands.options import PresetName, Switch
from engine.spec import load_spec, preset_names, preset_text

MARGIN = "    "

app = App(name="presets", help="List the presets that ship with eos, or show one.")


@app.default
def list_presets(*, json: Switch = False) -> int:
    """List the presets that ship with eos: what each shows and how long it takes.

    Args:
        json: Print one JSON array.
    """
    specs = [load_spec(name) for name in preset_names()]
    if json:
        print_json([{"name": spec.name, "title": spec.title, "shows": spec.shows, "takes": spec.takes} for spec in specs])
        return 0
    width = shutil.get_terminal_size().columns
    for spec in specs:
        text = f"{spec.title}. {spec.shows} Takes: {spec.takes}."
        print(f"{spec.name}\n{textwrap.fill(text, max(width, 60), initial_indent=MARGIN, subsequent_indent=MARGIN)}")
    return 0


@app.command
def show(preset: PresetName, /, *, json: Switch = False) -> int:
    """Print a preset as it is written, comments and all: the beginning of one of your own.

    Args:
        preset: A preset's name, or the path of a preset file.
        json: Print every setting that a run of it has as one JSON object.
    """
    spec, text = load_spec(preset), preset_text(preset)
    if json:
        print_json(spec)
    else:
        print(text, end="" if text.endswith("\n") else "\n")
    return 0
