"""``python -m hintc`` is the command ``hintc``."""

import sys

from hintc.cli import main

if __name__ == "__main__":
    sys.exit(main(program="python -m hintc"))
