"""Shows how far a long command is, on standard error, so that output can be piped on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

Tell = Callable[[str, float | None], None]


@contextlib.contextmanager
def stage_progress() -> Iterator[Tell]:
    """Give a function that takes a stage for people and a fraction in [0, 1] or None.

    On a terminal it moves a bar; elsewhere it prints a line per stage.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        last = ""

        def write(stage: str, _: float | None) -> None:
            nonlocal last
            if stage != last:
                last = stage
                console.print(stage, markup=False, highlight=False, soft_wrap=True)

        yield write
        return
    columns = (SpinnerColumn(), BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("starting", total=None)

        def move(stage: str, fraction: float | None) -> None:
            total = None if fraction is None else 1.0
            bars.update(task, description=stage, total=total, completed=fraction or 0.0)

        yield move
