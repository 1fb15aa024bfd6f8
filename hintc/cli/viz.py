"""``hintc viz``: a picture of a graph."""

from __future__ import annotations

import click


@click.command("viz")
def viz_command() -> None:
    """Draw a graph."""
