"""The user's mistakes, as this package says them."""


class AnalysisError(ValueError):
    """What was asked cannot be answered; the message says why. The command exits with 2."""
