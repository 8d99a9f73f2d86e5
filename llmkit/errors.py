"""Errors that a person can act on; the command line prints them and uses their exit code."""


class LlmkitError(Exception):
    """Something failed. The message names what, where, and the next step."""

    exit_code = 1


class UsageError(LlmkitError):
    """What was asked for is wrong: a recipe, an argument, a path."""

    exit_code = 2


class CheckFailed(LlmkitError):
    """A check refused to pass: the work is there, and it is not what it should be."""

    exit_code = 3
