"""`python -m engine`: the headless command line. An engine by itself, `work DIRECTORY`, does without building it."""

import gc
import os
import sys


def main() -> int:
    """Carry out the command, and return its exit status."""
    gc.disable()  # what is imported stays; to look through it again and again would take a sixth of the start
    from engine.base.exit import ended, open_streams

    open_streams()
    words = sys.argv[1:]
    if len(words) in (2, 4) and words[0] == "work" and not words[1].startswith("-") and words[2:3] in ([], ["--code"]):
        from engine.process.worker import work

        return ended(lambda: work(words[1], code="".join(words[3:])))
    from engine.commands import main

    gc.enable()
    return main.main()


if __name__ == "__main__":
    if not sys.flags.safe_path and sys.path[0] != __file__.rpartition(f"{os.sep}{__package__}{os.sep}")[0]:
        del sys.path[0]  # the folder that `python -m` is given in: a module there may have the name of one that is imported from here on
    sys.exit(main())
