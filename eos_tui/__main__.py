"""`eos`, and `python -m eos_tui`: what only opens the view is opened at once, any other command line goes to `eos_tui.cli`."""

import gc
import os
import sys


def main() -> int:
    """Run `eos` and return its exit status."""
    gc.disable()  # what is imported stays; to look through it again and again would take a fifth of the start
    from engine.base.exit import open_streams

    open_streams()
    from eos_tui.opening import ViewCommand

    if (asked := ViewCommand.of(sys.argv[1:])) is not None:
        return asked.open()
    from eos_tui import cli

    gc.enable()
    return cli.main()


if __name__ == "__main__":
    if not sys.flags.safe_path and sys.path[0] != __file__.rpartition(f"{os.sep}{__package__}{os.sep}")[0]:
        del sys.path[0]  # the folder that `python -m` is given in: a module there may have the name of one that is imported from here on
    sys.exit(main())
