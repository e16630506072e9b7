"""The one kind of error that a user can cause."""


class VitralError(ValueError):
    """Something in the input, the options or the machine stands in the way.

    The message names the file or the value and says what to do about it; the command line prints it without a traceback
    and exits with 2. What only a programmer can cause is an `assert` instead.
    """
