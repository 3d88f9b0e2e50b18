"""Text that every UTF-8 file can hold."""


def replace_unstorable(text: str) -> str:
    """Return `text` with a question mark for each lone surrogate, which JSON can spell but UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode()
