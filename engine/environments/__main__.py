"""``python -m engine.environments NAME ...``: make these, or without names all of them."""

from __future__ import annotations

import sys

from engine.environments import EnvironmentMissing, make, names


def say(text: str) -> None:
    """Progress, kept apart from the paths that are printed."""
    sys.stderr.write(f"{text}\n")


def main(wanted: list[str]) -> int:
    """The number of environments that could not be made."""
    failed = 0
    for name in wanted or names():
        try:
            sys.stdout.write(f"{make(name, say)}\n")
        except EnvironmentMissing as error:
            sys.stderr.write(f"{error}\n")
            failed += 1
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
