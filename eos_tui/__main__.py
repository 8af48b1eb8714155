"""`eos`, and `python -m eos_tui`: what only opens the view is opened at once, any other command line goes to `eos_tui.cli`."""

import gc
import sys


def main() -> int:
    """Run `eos` and return its exit status."""
    gc.disable()  # what is imported stays; to look through it again and again would take a fifth of the start
    from engine.ending import open_streams

    open_streams()
    from eos_tui.opening import Asked

    if (asked := Asked.of(sys.argv[1:])) is not None:
        return asked.open()
    from eos_tui import cli

    gc.enable()
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
