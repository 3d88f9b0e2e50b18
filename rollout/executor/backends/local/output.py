"""Capture the standard output of a script in a bounded amount of memory."""


class BoundedOutput:
    """The head and the tail of a stream, with the number of bytes between them."""

    def __init__(self, limit: int) -> None:
        """Keep at most about `limit` bytes: half from the beginning and half from the end."""
        self._half = max(limit // 2, 1)
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0

    def add(self, chunk: bytes) -> None:
        """Add the next bytes of the stream."""
        free = self._half - len(self._head)
        if free > 0:
            self._head += chunk[:free]
            chunk = chunk[free:]
        self._tail += chunk
        # Trimmed only now and then, so that a flood costs one copy per half and not one per chunk.
        if len(self._tail) > 2 * self._half:
            self._cut()

    def text(self) -> str:
        """Return the kept text, with the number of dropped bytes between head and tail."""
        self._cut()
        notice = f"\n[{self._dropped} bytes of output cut]\n".encode() if self._dropped else b""
        return (bytes(self._head) + notice + bytes(self._tail)).decode(errors="replace")

    def _cut(self) -> None:
        excess = len(self._tail) - self._half
        if excess > 0:
            self._dropped += excess
            del self._tail[:excess]
