"""Numbers in sentences."""


def counted(count: int, noun: str) -> str:
    """ "1 pair", "2 pairs", "2 processes": the noun, which comes in the singular, agrees with its number."""
    ending = "" if count == 1 else "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{count} {noun}{ending}"
