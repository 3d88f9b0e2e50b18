"""Send the files of jobs to the nodes of a cluster, each file once per node, in messages of bounded size."""

import asyncio
from collections.abc import Iterator, Sequence

import ray

from rollout.executor.backends.ray.nodes import Node
from rollout.storage.blob_store import BlobStore
from rollout.types import Job, is_folder

SHARED_BYTES = 100_000  # files from this size on go through Ray's object store, from which all nodes fetch them
MESSAGE_BYTES = 1 << 25  # small files of a folder are batched up to this size, and larger files are split


class Sender:
    """A sender of files to the nodes that do not have them yet, on one event loop."""

    def __init__(self, store: BlobStore) -> None:
        """Take the blob store that holds the content of jobs' files."""
        self._store = store
        self._shared: dict[str, ray.ObjectRef[bytes]] = {}

    async def send(self, node: Node, job: Job) -> None:
        """Send a job's files to a node; a second job with the same files waits for the first one to send them.

        Raises:
            CorruptRecord: If a file is damaged.
            RayError: If the node is lost.
        """
        async with node.sending:
            # A folder's manifest is sent like a file, and last, so a node that has it has all files that it names.
            for name, digest in sorted(job.files.items()):
                if is_folder(name) and digest not in node.digests:
                    inside = await asyncio.to_thread(self._store.files_in, digest)
                    for batch in self._batches(sorted(set(inside.values()) - node.digests)):
                        await self._send_batch(node, batch)
            missing = sorted(set(job.files.values()) - node.digests)
            large = [digest for digest in missing if self._store.size(digest) > MESSAGE_BYTES]
            for digest in large:
                await self._send_large(node, digest)
            if small := [digest for digest in missing if digest not in large]:
                await node.actor.put.remote(*map(self._content, small))
                node.digests.update(small)

    async def _send_batch(self, node: Node, batch: Sequence[str]) -> None:
        if self._store.size(batch[0]) > MESSAGE_BYTES:
            return await self._send_large(node, batch[0])
        contents = await asyncio.to_thread(lambda: [self._store.get(digest) for digest in batch])
        await node.actor.put_all.remote(contents)
        node.digests.update(batch)

    async def _send_large(self, node: Node, digest: str) -> None:
        path = await asyncio.to_thread(self._store.checked_path, digest)
        with open(path, "rb") as file:
            while piece := file.read(MESSAGE_BYTES):
                await node.actor.append.remote(digest, file.tell() - len(piece), piece)
        await node.actor.complete.remote(digest)
        node.digests.add(digest)

    def _batches(self, digests: Sequence[str]) -> Iterator[list[str]]:
        """Yield batches of files that fit one message; a file that is too large is a batch of its own."""
        batch, free = [], MESSAGE_BYTES
        for digest in digests:
            size = self._store.size(digest)
            if batch and size > free:
                yield batch
                batch, free = [], MESSAGE_BYTES
            batch.append(digest)
            free -= size
        if batch:
            yield batch

    def _content(self, digest: str) -> "bytes | ray.ObjectRef[bytes]":
        """Return a file as Ray accepts it; a large one is put into its object store once, for all nodes."""
        if digest not in self._shared:
            content = self._store.get(digest)
            if len(content) < SHARED_BYTES:
                return content
            self._shared[digest] = ray.put(content)
        return self._shared[digest]
