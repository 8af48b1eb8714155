"""`python -m engine`: the headless command line."""

import gc
import sys

gc.disable()  # what is imported stays; to look through it again and again would take a sixth of the start
from engine.cli import main  # noqa: E402

gc.enable()
sys.exit(main())
