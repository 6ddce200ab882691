/* libFuzzer's target of plugin/frozen/accelerator.c: an input is what the kernel does, the environment, stdin, and what the
 * agent says, with the byte 0xFF between them. Whatever comes: it stays in its buffers, it sends what plugin/wire.py says, it
 * writes what the agent has said and no more, and what it hands over is what it has read. */
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { CONTROLS = 5, MOST = 64, ROOM = 1 << 18, NETNS = 7, AGENT = 8 };
struct stream { char data[ROOM]; size_t size, at, step; };
static struct { struct stream config, agent, sent, written; char *environment[MOST + 1]; struct sockaddr_un asked; int fails, held, passed; double time, pace; } kernel;

#define CHECK(what) do { if (!(what)) { fprintf(stderr, "finding: %s, line %d\n", #what, __LINE__); abort(); } } while (0)

static ssize_t take(struct stream *from, void *to, size_t room) {
    size_t left = from->size - from->at, size = left < from->step ? left : from->step;
    if (size > room) size = room;
    memcpy(to, from->data + from->at, size);
    from->at += size;
    return (ssize_t)size;
}
static ssize_t put(struct stream *to, const void *from, size_t size) {
    CHECK(size <= ROOM - to->size);
    memcpy(to->data + to->size, from, size);
    to->size += size;
    return (ssize_t)size;
}

static char *sim_getenv(const char *name) {
    for (char **each = kernel.environment; *each; each++)
        if (!strncmp(*each, name, strlen(name)) && (*each)[strlen(name)] == '=') return *each + strlen(name) + 1;
    return NULL;
}
static ssize_t sim_read(int fd, void *to, size_t room) { CHECK(fd == 0 && room); return kernel.fails & 1 ? -1 : take(&kernel.config, to, room); }
static ssize_t sim_write(int fd, const void *from, size_t size) {
    CHECK(fd == 1);
    if (kernel.fails & 2 && kernel.written.size) return -1;
    return kernel.fails & 4 ? -1 : put(&kernel.written, from, size < kernel.written.step ? size : kernel.written.step);
}
static int sim_open(const char *path, int flags) { CHECK(*path && flags & O_NONBLOCK && flags & O_CLOEXEC); if (kernel.fails & 8) return -1; kernel.held |= 1; return NETNS; }
static int sim_socket(int family, int kind, int protocol) { CHECK(family == AF_UNIX && kind & SOCK_NONBLOCK && !protocol); if (kernel.fails & 16) return -1; kernel.held |= 2; return AGENT; }
static int sim_connect(int fd, const struct sockaddr *to, socklen_t size) {
    CHECK(fd == AGENT && size == sizeof kernel.asked);
    memcpy(&kernel.asked, to, size);
    return kernel.fails & 32 ? -1 : 0;
}
static ssize_t sim_sendmsg(int fd, const struct msghdr *message, int flags) {
    CHECK(fd == AGENT && !flags && kernel.held & 2);
    for (size_t each = 0; each < message->msg_iovlen; each++) put(&kernel.sent, message->msg_iov[each].iov_base, message->msg_iov[each].iov_len);
    if (message->msg_control) {
        struct cmsghdr *rights = CMSG_FIRSTHDR(message);
        CHECK(rights->cmsg_type == SCM_RIGHTS && rights->cmsg_len == CMSG_LEN(sizeof(int)));
        memcpy(&kernel.passed, CMSG_DATA(rights), sizeof(int));
        CHECK(kernel.passed == NETNS && kernel.held & 1);
    }
    return (ssize_t)kernel.sent.size - !!(kernel.fails & 64);
}
static int sim_poll(struct pollfd *fds, nfds_t count, int timeout) { CHECK(count == 1 && fds->fd == AGENT && timeout > 0 && timeout <= 20001); return !(kernel.fails & 128); }
static ssize_t sim_recv(int fd, void *to, size_t room, int flags) { CHECK(fd == AGENT && room && !flags); return take(&kernel.agent, to, room); }
static int sim_close(int fd) { CHECK((fd == NETNS && kernel.held & 1) || (fd == AGENT && kernel.held & 2)); kernel.held &= fd == NETNS ? ~1 : ~2; return 0; }
static int sim_clock_gettime(clockid_t clock, struct timespec *time) { CHECK(clock == CLOCK_MONOTONIC); kernel.time += kernel.pace; time->tv_sec = (time_t)kernel.time; time->tv_nsec = 0; return 0; }

#include "../../plugin/frozen/own.h"
#define read sim_read
#define write sim_write
#define open sim_open
#define socket sim_socket
#define connect sim_connect
#define sendmsg sim_sendmsg
#define poll(fds, count, timeout) sim_poll(fds, count, timeout)
#define recv sim_recv
#define close sim_close
#define clock_gettime sim_clock_gettime
#include "../../plugin/frozen/accelerator.c"
#undef memcmp /* the checks below use the C library's: of own.h's, the sanitizer would trace each byte */

struct begun begun;

/* What the agent has said, read in another way: the payload of the first frame that is not WORKING. */
static struct text result(void) {
    const unsigned char *at = (unsigned char *)kernel.agent.data, *end = at + kernel.agent.size;
    while (end - at >= HEAD && !memcmp(at, "\1\2\0\0\0\0", HEAD)) at += HEAD;
    CHECK(end - at > HEAD && at[0] == WIRE_VERSION && at[1] == RESULT && at[HEAD] == 0);
    size_t size = (size_t)((at[2] * 256u + at[3]) * 256u + at[4]) * 256u + at[5];
    CHECK(size <= (size_t)(end - at) - HEAD);
    return (struct text){(const char *)at + HEAD + 1, size - 1};
}

static void check_request(void) {
    const char *at = kernel.sent.data + HEAD;
    for (char **each = kernel.environment; *each; each++)
        if (!strncmp(*each, "CNI_", 4)) {
            CHECK(!strcmp(at, *each));
            at += strlen(*each) + 1;
            char *sign = strchr(*each, '=');
            CHECK(sign);
            for (char **before = kernel.environment; before < each; before++) CHECK(strncmp(*before, *each, (size_t)(sign - *each) + 1));
        }
    CHECK(*at++ == 0 && (size_t)(at - kernel.sent.data) + kernel.config.size == kernel.sent.size);
    CHECK(!memcmp(at, kernel.config.data, kernel.config.size));
    unsigned char *head = (unsigned char *)kernel.sent.data;
    size_t size = kernel.sent.size - HEAD;
    CHECK(head[0] == WIRE_VERSION && head[1] == REQUEST && !head[2] && head[3] == size >> 16 && head[4] == (size >> 8 & 255) && head[5] == (size & 255));
    CHECK(kernel.asked.sun_path[0] == '/' && !kernel.asked.sun_path[sizeof kernel.asked.sun_path - 1]);
    CHECK(memmem(kernel.config.data, kernel.config.size, kernel.asked.sun_path, strlen(kernel.asked.sun_path)));
    CHECK((kernel.passed == NETNS) == !!strcmp(sim_getenv("CNI_COMMAND"), "STATUS"));
}

static void check(int status) {
    CHECK(status == UNUSUAL || status == 0 || status == 1);
    CHECK(begun.stdin_size == kernel.config.at && !memcmp(begun.stdin_read, kernel.config.data, begun.stdin_size));
    CHECK(begun.received_size == kernel.agent.at && !memcmp(begun.received, kernel.agent.data, begun.received_size));
    static const char untouched[LARGEST];
    CHECK(!memcmp(begun.stdin_read + begun.stdin_size, untouched, LARGEST - begun.stdin_size));
    CHECK(!memcmp(begun.received + begun.received_size, untouched, LARGEST - begun.received_size));
    CHECK(!(kernel.held & 1) && (begun.agent == AGENT) == !!(kernel.held & 2));
    if (kernel.sent.size) check_request();
    if (status == UNUSUAL) { CHECK(!kernel.written.size); return; }
    const char *command = sim_getenv("CNI_COMMAND");
    if (!strcmp(command, "DEL") || !strcmp(command, "GC")) { CHECK(!kernel.config.at && !kernel.written.size && !status); return; }
    CHECK(kernel.config.at == kernel.config.size);
    if (!strcmp(command, "VERSION")) { CHECK(!kernel.sent.size && kernel.written.size); return; }
    struct text said = result();
    CHECK(kernel.written.size <= said.size && !memcmp(kernel.written.data, said.at, kernel.written.size));
    CHECK(status || kernel.written.size == said.size);
}

static size_t section(const uint8_t **data, size_t *size, char *to) {
    const uint8_t *end = memchr(*data, 0xFF, *size);
    size_t length = end ? (size_t)(end - *data) : *size;
    if (length > ROOM / 4) length = ROOM / 4;
    memcpy(to, *data, length);
    size_t used = length + !!end;
    *data += used, *size -= used;
    return length;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char environment[ROOM];
    if (size < CONTROLS) return 0;
    const uint8_t *control = data;
    data += CONTROLS, size -= CONTROLS;
    memset(begun.stdin_read, 0, begun.stdin_size), memset(begun.received, 0, begun.received_size); /* `check` saw that the rest is so */
    begun.stdin_size = begun.received_size = 0, begun.since = 0;
    kernel.config.at = kernel.agent.at = kernel.sent.size = kernel.written.size = 0;
    kernel.fails = control[0] & control[1]; /* mostly nothing fails */
    kernel.held = 0, kernel.passed = -1, kernel.time = 1000, kernel.pace = (control[2] >> 4) / 4.0;
    kernel.config.step = kernel.agent.step = kernel.written.step = control[2] & 15 ? (size_t)1 << (control[2] & 15) : 1;
    size_t length = section(&data, &size, environment), count = 0;
    environment[length] = 0;
    for (char *at = environment; at < environment + length && count < MOST; at += strlen(at) + 1) kernel.environment[count++] = strdup(at);
    kernel.environment[count] = NULL;
    kernel.config.size = section(&data, &size, kernel.config.data);
    kernel.agent.size = section(&data, &size, kernel.agent.data);
    /* Around what fits into a buffer: blanks behind the configuration, WORKING before the answer. */
    if (control[3] > 250) {
        size_t until = (1 << 16) + control[3] - 253;
        if (kernel.config.size < until) memset(kernel.config.data + kernel.config.size, ' ', until - kernel.config.size), kernel.config.size = until;
    }
    if (control[4] > 250) {
        size_t more = ((1 << 16) / HEAD - kernel.agent.size / HEAD + control[4] - 253) * HEAD;
        memmove(kernel.agent.data + more, kernel.agent.data, kernel.agent.size);
        for (size_t at = 0; at < more; at += HEAD) memcpy(kernel.agent.data + at, "\1\2\0\0\0\0", HEAD);
        kernel.agent.size += more;
    }
    check(accelerate(kernel.environment, &begun));
    for (size_t each = 0; each < count; each++) free(kernel.environment[each]);
    return 0;
}
