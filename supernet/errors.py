"""The mark of errors that whoever runs a script can mend."""


class Mendable(Exception):  # noqa: N818  (a mark beside the real error type, never raised itself)
    """Its message is one line that says what was expected and what was seen; scripts show it without a traceback."""


class UsageError(Mendable):
    """An option is wrong."""


class LeftAlone(Exception):  # noqa: N818  (nothing went wrong)
    """What was asked for is done already. The message, one line, says where."""
