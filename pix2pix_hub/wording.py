"""Numbers in sentences."""


def counted(count: float, noun: str) -> str:
    """ "1 pair", "2 pairs", "2 processes", "1.5 epochs": the noun, which comes in the singular, agrees."""
    number = str(count) if isinstance(count, int) else f"{count:.4g}"
    ending = "" if number == "1" else "es" if noun.endswith(("s", "x", "ch", "sh")) and noun != "epoch" else "s"
    return f"{number} {noun}{ending}"
