"""`python -m eos_tui` is `eos`."""

import sys

from eos_tui.cli import main

sys.exit(main())
