"""Texts of others, written so that every encoding and terminal can take them."""


def printable(text: str) -> str:
    """Return a text that every encoding and terminal can take: what is not printable is written as an escape."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )
