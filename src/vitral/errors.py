"""The one kind of error that a user can cause, and words for its message."""

from collections.abc import Sequence


class VitralError(ValueError):
    """Something in the input, the options or the machine stands in the way.

    The message names the file or the value and says what to do about it; the command line prints it without a traceback
    and exits with 2. What only a programmer can cause is an `assert` instead.
    """


def all_of(where: str, problems: Sequence[str]) -> str:
    """The message of several problems found together, so that a person can mend them in one go."""
    if len(problems) == 1:
        return f"{where}: {problems[0]}"
    return f"{where}: {len(problems)} things to mend:\n" + "\n".join(f"- {problem}" for problem in problems)


def counted(n: int, one: str, many: str | None = None) -> str:
    """1 image, 2 images."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def some(items: Sequence[str], shown: int = 10) -> str:
    """The first of a list for a person, and how many more there are."""
    more = f" and {len(items) - shown} more" if len(items) > shown else ""
    return ", ".join(items[:shown]) + more
