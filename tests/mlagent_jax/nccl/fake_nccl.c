/* A stand-in for NCCL and the CUDA runtime: the ranks are processes or threads, joined by sockets, and the buffers lie
   in the host's memory. A call returns when its work is done, so that streams have nothing to do. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { OK = 0, SYSTEM_ERROR = 2, INVALID_USAGE = 5, MOST_RANKS = 8 };
typedef struct { char internal[128]; } Id;
typedef struct { int rank, size, peers[MOST_RANKS]; } Group;

static int all(ssize_t (*move)(int, void *, size_t), int peer, void *buffer, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t moved = move(peer, (char *)buffer + done, size - done);
        if (moved < 0 && errno == EINTR) continue;
        if (moved <= 0) return SYSTEM_ERROR;
        done += (size_t)moved;
    }
    return OK;
}
static ssize_t give(int peer, void *buffer, size_t size) { return send(peer, buffer, size, MSG_NOSIGNAL); }
static ssize_t take(int peer, void *buffer, size_t size) { return recv(peer, buffer, size, 0); }

int ncclGetUniqueId(Id *id) {
    static int number;
    memset(id, 0, sizeof *id);
    snprintf(id->internal, 100, "%s/fake-nccl-%d-%d", getenv("FAKE_NCCL"), getpid(), number++);
    return OK;
}

int ncclCommInitRank(Group **group, int size, Id id, int rank) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, id.internal, sizeof address.sun_path - 1);
    Group *made = *group = calloc(1, sizeof(Group));
    made->rank = rank, made->size = size;
    int own = socket(AF_UNIX, SOCK_STREAM, 0);
    if (rank == 0) {
        if (bind(own, (struct sockaddr *)&address, sizeof address) || listen(own, size)) return SYSTEM_ERROR;
        for (int joined = 1; joined < size; joined++) {
            int peer = accept(own, NULL, NULL), other;
            if (all(take, peer, &other, sizeof other)) return SYSTEM_ERROR;
            made->peers[other] = peer;
        }
        close(own);
        return OK;
    }
    for (int tries = 0; connect(own, (struct sockaddr *)&address, sizeof address); tries++) {
        if (tries == 1000) return SYSTEM_ERROR;
        usleep(10000);
    }
    made->peers[0] = own;
    return all(give, own, &rank, sizeof rank);
}

int ncclAllReduce(float *sent, float *received, size_t count, int type, int operation, Group *group, void *stream) {
    if (count != 1 || type != 7 || operation != 0) return INVALID_USAGE;
    float sum = *sent, other;
    for (int peer = 1; group->rank == 0 && peer < group->size; peer++, sum += other)
        if (all(take, group->peers[peer], &other, sizeof other)) return SYSTEM_ERROR;
    if (group->rank != 0) {
        if (all(give, group->peers[0], &sum, sizeof sum)) return SYSTEM_ERROR;
        return all(take, group->peers[0], received, sizeof sum);
    }
    for (int peer = 1; peer < group->size; peer++)
        if (all(give, group->peers[peer], &sum, sizeof sum)) return SYSTEM_ERROR;
    *received = sum;
    return OK;
}

int ncclBroadcast(void *sent, void *received, size_t count, int type, int root, Group *group, void *stream) {
    size_t told = count;
    if (type != 1 || root != 0) return INVALID_USAGE;
    if (group->rank != 0) {
        if (all(take, group->peers[0], &told, sizeof told)) return SYSTEM_ERROR;
        return told == count ? all(take, group->peers[0], received, count) : INVALID_USAGE;
    }
    for (int peer = 1; peer < group->size; peer++)
        if (all(give, group->peers[peer], &told, sizeof told) || all(give, group->peers[peer], sent, count))
            return SYSTEM_ERROR;
    return OK;
}

int ncclCommAbort(Group *group) {
    for (int peer = 0; peer < group->size; peer++)
        if (group->peers[peer]) shutdown(group->peers[peer], SHUT_RDWR);
    return OK;
}

const char *ncclGetErrorString(int status) { return status == SYSTEM_ERROR ? "a rank is gone" : "invalid usage"; }
const char *cudaGetErrorString(int status) { return "no error"; }
int ncclGetVersion(int *version) { return *version = 22907, OK; }
int cudaSetDevice(int device) { return OK; }
int cudaStreamCreateWithFlags(void **stream, unsigned flags) { return *stream = stream, OK; }
int cudaStreamSynchronize(void *stream) { return OK; }

/* What vLLM's wrapper looks for as well, and nobody calls here. */
#define UNUSED(name) int name(void) { return INVALID_USAGE; }
UNUSED(ncclAllGather) UNUSED(ncclCommDestroy) UNUSED(ncclCommQueryProperties)
UNUSED(ncclCommResume) UNUSED(ncclCommSuspend) UNUSED(ncclCommWindowDeregister) UNUSED(ncclCommWindowRegister)
UNUSED(ncclGroupEnd) UNUSED(ncclGroupStart) UNUSED(ncclRecv) UNUSED(ncclReduce) UNUSED(ncclReduceScatter)
UNUSED(ncclSend)
