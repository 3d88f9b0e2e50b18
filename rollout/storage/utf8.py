"""Convert text so that UTF-8 can encode it."""


def replace_unstorable(text: str) -> str:
    """Return `text` with a question mark for each lone surrogate, which JSON can spell but UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode()
