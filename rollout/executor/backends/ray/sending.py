"""How the files of jobs come to the nodes of a cluster: each once to a node, in messages of bounded size."""

import asyncio
from collections.abc import Iterator, Sequence

import ray

from rollout.executor.backends.ray.nodes import Node
from rollout.storage.blob_store import BlobStore
from rollout.types import Job, is_folder

SHARED_BYTES = 100_000  # files from here on go through Ray's object store, from which all nodes fetch them
MESSAGE_BYTES = 1 << 25  # a folder's small files go together up to this size, larger files in pieces of it


class Sender:
    """Sends nodes the files that they do not have yet, on one event loop.

    Attributes:
        num_sent: files sent to nodes.
    """

    def __init__(self, store: BlobStore) -> None:
        """Take where the contents of jobs' files are."""
        self.num_sent = 0
        self._store = store
        self._shared: dict[str, ray.ObjectRef[bytes]] = {}

    async def send(self, machine: Node, job: Job) -> None:
        """Return once the node has the job's files; whoever needs the same ones waits here for the first to send.

        Raises CorruptRecord when a file is damaged, RayError when the node is lost.
        """
        async with machine.sending:
            # A folder's manifest is sent like a file, and last: a node that has it has all that it names.
            for name, digest in sorted(job.files.items()):
                if is_folder(name) and digest not in machine.has:
                    inside = await asyncio.to_thread(self._store.files_in, digest)
                    for batch in self._batches(sorted(set(inside.values()) - machine.has)):
                        await self._send_batch(machine, batch)
            missing = sorted(set(job.files.values()) - machine.has)
            large = [digest for digest in missing if self._store.size(digest) > MESSAGE_BYTES]
            for digest in large:
                await self._send_large(machine, digest)
            if small := [digest for digest in missing if digest not in large]:
                await machine.actor.put.remote(*map(self._content, small))
                self._note(machine, small)

    async def _send_batch(self, machine: Node, batch: Sequence[str]) -> None:
        if self._store.size(batch[0]) > MESSAGE_BYTES:
            return await self._send_large(machine, batch[0])
        contents = await asyncio.to_thread(lambda: [self._store.get(digest) for digest in batch])
        await machine.actor.put_all.remote(contents)
        self._note(machine, batch)

    async def _send_large(self, machine: Node, digest: str) -> None:
        path = await asyncio.to_thread(self._store.checked_path, digest)
        with open(path, "rb") as file:
            while piece := file.read(MESSAGE_BYTES):
                await machine.actor.append.remote(digest, file.tell() - len(piece), piece)
        await machine.actor.complete.remote(digest)
        self._note(machine, [digest])

    def _note(self, machine: Node, digests: Sequence[str]) -> None:
        machine.has.update(digests)
        self.num_sent += len(digests)

    def _batches(self, digests: Sequence[str]) -> Iterator[list[str]]:
        """Yield files that fit one message together; one that fits none is alone."""
        batch, room = [], MESSAGE_BYTES
        for digest in digests:
            size = self._store.size(digest)
            if batch and size > room:
                yield batch
                batch, room = [], MESSAGE_BYTES
            batch.append(digest)
            room -= size
        if batch:
            yield batch

    def _content(self, digest: str) -> "bytes | ray.ObjectRef[bytes]":
        """Return a file as Ray takes it; what is large is put into its object store once, for all nodes."""
        if digest not in self._shared:
            content = self._store.get(digest)
            if len(content) < SHARED_BYTES:
                return content
            self._shared[digest] = ray.put(content)
        return self._shared[digest]
