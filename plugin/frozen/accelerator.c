/* The usual call without Python (D13, PEP 399): plugin/client.py is the whole client, this does the same where nothing is unusual.
 *
 * It runs as root on every node. So it trusts no length, has no allocation and no text of its own for people: whatever it does
 * not expect (no agent, silence, an error, another form, something large) is UNUSUAL, and Python goes on with what was read. */
#include "accelerator.h"
#include "constants.h" /* made of plugin/wire.py, client.py and version.py */
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MOST_VARIABLES = 16 };
struct text { const char *at; size_t size; };

static int is(struct text text, const char *word) { return text.size == strlen(word) && !memcmp(text.at, word, text.size); }

static double now(void) {
    struct timespec time;
    return clock_gettime(CLOCK_MONOTONIC, &time) ? 0 : (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int finish(const char *answer, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t written = write(1, answer + done, size - done);
        if (written <= 0) return done ? 1 : UNUSUAL;
        done += (size_t)written;
    }
    return 0;
}

static int read_stdin(struct begun *begun) {
    while (begun->stdin_size < LARGEST) {
        ssize_t got = read(0, begun->stdin_read + begun->stdin_size, LARGEST - begun->stdin_size);
        if (got <= 0) return got == 0;
        begun->stdin_size += (size_t)got;
    }
    return 0;
}

/* Copy the CNI_* variables, each with its NUL, and the NUL behind them; 0 if one is there twice or they are many. */
static size_t join(char *const *environment, char *to, size_t room) {
    size_t size = 0, count = 0;
    for (char *const *each = environment; *each; each++) {
        if (strncmp(*each, "CNI_", 4)) continue;
        size_t length = strlen(*each) + 1, name = strcspn(*each, "=") + 1;
        if (name > length - 1 || ++count > MOST_VARIABLES || length >= room - size) return 0;
        for (char *const *before = environment; before < each; before++)
            if (!strncmp(*before, *each, name)) return 0;
        memcpy(to + size, *each, length);
        size += length;
    }
    to[size++] = 0;
    return size;
}

/* Find the one "agentSocket" of the outermost object: further in, a pod's annotation could pose as one. */
static int find_agent(struct text json, struct sockaddr_un *agent) {
    struct text key = {"", 0}, path = {"", 0};
    char before = 0; /* the last character outside of strings that is no blank */
    int depth = 0, found = 0;
    for (size_t at = 0; at < json.size; at++) {
        char seen = json.at[at];
        if (seen == ' ' || seen == '\t' || seen == '\n' || seen == '\r') continue;
        if (seen == '"') {
            size_t begin = ++at;
            while (at < json.size && json.at[at] != '"') at += json.at[at] == '\\' ? 2 : 1;
            if (at >= json.size) return 0;
            struct text string = {json.at + begin, at - begin};
            if (depth == 1 && (before == '{' || before == ',')) key = string;
            if (depth == 1 && before == ':' && is(key, "agentSocket")) path = string, found++;
        } else if ((depth += (seen == '{' || seen == '[') - (seen == '}' || seen == ']')) < 1 && seen != '}') {
            return 0; /* it is no object */
        }
        before = seen;
    }
    if (depth || found != 1 || path.size >= sizeof agent->sun_path || *path.at != '/') return 0;
    if (memchr(path.at, '\\', path.size) || memchr(path.at, 0, path.size)) return 0;
    memcpy(agent->sun_path, path.at, path.size);
    return 1;
}

/* Send the request in one piece, with the netns (plugin/wire.py). */
static int send_request(int agent, struct text variables, struct text config, int netns) {
    size_t size = variables.size + config.size;
    unsigned char head[HEAD] = {WIRE_VERSION, REQUEST, (unsigned char)(size >> 24), (unsigned char)(size >> 16),
                                (unsigned char)(size >> 8), (unsigned char)size};
    struct iovec parts[] = {{head, HEAD}, {(void *)variables.at, variables.size}, {(void *)config.at, config.size}};
    char control[CMSG_SPACE(sizeof netns)] = {0};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};
    if (netns >= 0) {
        message.msg_control = control, message.msg_controllen = sizeof control;
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET, rights->cmsg_type = SCM_RIGHTS, rights->cmsg_len = CMSG_LEN(sizeof netns);
        memcpy(CMSG_DATA(rights), &netns, sizeof netns);
    }
    return sendmsg(agent, &message, 0) == (ssize_t)(HEAD + size);
}

/* Wait for a result that is no error, and write it. */
static int answer(struct begun *begun) {
    double until = begun->since + SILENCE;
    for (size_t at = 0;;) {
        while (begun->received_size - at >= HEAD) {
            const unsigned char *head = (const unsigned char *)begun->received + at;
            size_t size = (size_t)head[2] << 24 | (size_t)head[3] << 16 | (size_t)head[4] << 8 | head[5];
            if (head[0] != WIRE_VERSION || (head[1] != WORKING && head[1] != RESULT)) return UNUSUAL;
            if ((head[1] == WORKING) != (size == 0) || size > LARGEST - HEAD - at) return UNUSUAL;
            until = begun->since + GIVE_UP; /* somebody is there */
            if (size > begun->received_size - at - HEAD) break;
            if (head[1] == RESULT) return head[HEAD] ? UNUSUAL : finish((const char *)head + HEAD + 1, size - 1);
            at += HEAD;
        }
        struct pollfd waiting = {begun->agent, POLLIN, 0};
        double left = until - now();
        if (begun->received_size == LARGEST || left <= 0 || poll(&waiting, 1, (int)(left * 1000) + 1) != 1) return UNUSUAL;
        ssize_t got = recv(begun->agent, begun->received + begun->received_size, LARGEST - begun->received_size, 0);
        if (got <= 0) return UNUSUAL;
        begun->received_size += (size_t)got;
    }
}

int accelerate(char *const *environment, struct begun *begun) {
    begun->agent = -1;
    const char *command = getenv("CNI_COMMAND"), *path = getenv("CNI_NETNS");
    if (!command) return UNUSUAL;
    if (!strcmp(command, "DEL") || !strcmp(command, "GC")) return 0;
    int asks_version = !strcmp(command, "VERSION"), attaches = !strcmp(command, "ADD") || !strcmp(command, "CHECK");
    if ((!asks_version && !attaches && strcmp(command, "STATUS")) || !read_stdin(begun)) return UNUSUAL;
    struct text config = {begun->stdin_read, begun->stdin_size};
    for (size_t each = 0; asks_version && each < sizeof versions / sizeof *versions; each++)
        if (is(config, versions[each].question)) return finish(versions[each].answer, strlen(versions[each].answer));

    static char variables[LARGEST];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t size = join(environment, variables, sizeof variables);
    if (asks_version || !size || !find_agent(config, &address)) return UNUSUAL;
    int netns = attaches && path && *path ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    int agent = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    begun->since = now();
    int asked = agent >= 0 && attaches == (netns >= 0) && !connect(agent, (struct sockaddr *)&address, sizeof address) &&
                send_request(agent, (struct text){variables, size}, config, netns);
    if (netns >= 0) close(netns);
    if (asked) return begun->agent = agent, answer(begun);
    if (agent >= 0) close(agent);
    return UNUSUAL;
}
