"""The command ``hintc``: convert, compile, explain, passes, viz, new-op, new-pass.

Exit status: 0 all is well; 1 the user's mistake (command line, source, names); 2 verification or
comparison failed; 3 nothing was fused under ``--require-fused``; 130 interrupted.
"""

from hintc.cli.main import cli, main

__all__ = ["cli", "main"]
