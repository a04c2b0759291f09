"""The one exception for what a person can put right: a wrong option, a broken file, a data set that is not there."""


class UserError(ValueError):
    """Says what came, what was expected and what to type next.

    The command lines print its text without a traceback. Code raises it at the border, before any download or
    GPU work, and chains the library's own exception as its cause where there is one.
    """
