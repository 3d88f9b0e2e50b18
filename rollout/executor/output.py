"""The standard output of a script, kept within a bound however much it writes."""


class BoundedOutput:
    """The head and the tail of a stream, and how much lay between."""

    def __init__(self, limit: int) -> None:
        """Keep at most about `limit` bytes: the first half and the last half."""
        self._half = max(limit // 2, 1)
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0

    def add(self, chunk: bytes) -> None:
        """Take the stream's next bytes."""
        room = self._half - len(self._head)
        if room > 0:
            self._head += chunk[:room]
            chunk = chunk[room:]
        self._tail += chunk
        # Cut only now and then, so that a flood costs one copy per half, not per chunk.
        if len(self._tail) > 2 * self._half:
            self._cut()

    def text(self) -> str:
        """Return what was kept, with the number of bytes cut out standing between head and tail."""
        self._cut()
        gap = f"\n[{self._dropped} bytes of output cut]\n".encode() if self._dropped else b""
        return (bytes(self._head) + gap + bytes(self._tail)).decode(errors="replace")

    def _cut(self) -> None:
        excess = len(self._tail) - self._half
        if excess > 0:
            self._dropped += excess
            del self._tail[:excess]
