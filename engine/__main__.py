"""`python -m engine`: the headless command line. An engine by itself, `work DIRECTORY`, does without building it."""

import gc
import sys


def main() -> int:
    """Carry out the command, and return its exit status."""
    gc.disable()  # what is imported stays; to look through it again and again would take a sixth of the start
    from engine.ending import ended, open_streams

    open_streams()
    if len(sys.argv) == 3 and sys.argv[1] == "work" and not sys.argv[2].startswith("-"):
        from engine.worker import work

        return ended(lambda: work(sys.argv[2]))
    from engine import cli

    gc.enable()
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
