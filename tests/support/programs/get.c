// get [--repeat] URL: writes the body of http://ADDRESS[:PORT][/PATH] to stdout. Status 0 when the server says 200, else 1 with the reason
// on stderr. --repeat: twenty times a second until stdin ends; the first that fails is the last.
// ADDRESS is numeric ([…] for IPv6): no resolver is needed, so it runs where there is nothing else. It waits 20 s for each step.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static int fail(const char *url, const char *what) {
    fprintf(stderr, "get %s: ", url);
    perror(what);
    return 1;
}

// Where the URL points to: returns the address's size, or 0 if it is none that we know.
static socklen_t parse(const char *url, struct sockaddr_storage *to, char path[1024]) {
    char host[64];
    int length = 0, port = 80;
    int bracketed = sscanf(url, "http://[%63[0-9A-Fa-f:.]]%n", host, &length) == 1 && length;
    if (!bracketed && (sscanf(url, "http://%63[0-9.]%n", host, &length) != 1 || !length)) return 0;
    url += length;
    if (sscanf(url, ":%5d%n", &port, &length) == 1) url += length;
    if ((*url && *url != '/') || strlen(url) >= 1024) return 0;
    strcpy(path, *url ? url : "/");

    struct sockaddr_in *v4 = (struct sockaddr_in *)to;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)to;
    if (bracketed) {
        *v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
        return inet_pton(AF_INET6, host, &v6->sin6_addr) == 1 ? sizeof *v6 : 0;
    }
    *v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    return inet_pton(AF_INET, host, &v4->sin_addr) == 1 ? sizeof *v4 : 0;
}

static int connected(const struct sockaddr_storage *to, socklen_t size) {
    int server = socket(to->ss_family, SOCK_STREAM, 0);
    struct timeval patience = {.tv_sec = 20};
    setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(server, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);  // connect(2) heeds it too
    return server < 0 || connect(server, (const struct sockaddr *)to, size) ? -1 : server;
}

static int get(const char *url, const struct sockaddr_storage *to, socklen_t size, const char *path) {
    static char text[1 << 20];
    int server = connected(to, size);
    if (server < 0) return fail(url, "connect");
    if (dprintf(server, "GET %s HTTP/1.0\r\nHost: test\r\n\r\n", path) < 0) return fail(url, "write");
    size_t length = 0;
    for (ssize_t got; (got = read(server, text + length, sizeof text - 1 - length)) != 0; length += (size_t)got)
        if (got < 0) return fail(url, "read");
    close(server);
    text[length] = 0;
    const char *body = strstr(text, "\r\n\r\n");
    int status = 0;
    if (!body || sscanf(text, "HTTP/1.%*d %d", &status) != 1) {
        fprintf(stderr, "get %s: no HTTP answer, but %zu bytes\n", url, length);
        return 1;
    }
    fputs(body + 4, stdout);
    if (status == 200) return 0;
    fprintf(stderr, "get %s: status %d\n", url, status);
    return 1;
}

int main(int argc, char **argv) {
    char path[1024];
    struct sockaddr_storage to;
    int repeats = argc == 3 && !strcmp(argv[1], "--repeat");
    const char *url = argv[argc - 1];
    socklen_t size = argc == 2 || repeats ? parse(url, &to, path) : 0;
    if (!size) {
        fputs("usage: get [--repeat] http://ADDRESS[:PORT][/PATH]\n", stderr);
        return 2;
    }
    int failed = get(url, &to, size, path);
    struct pollfd told = {.fd = STDIN_FILENO, .events = POLLIN};
    while (repeats && !failed && !poll(&told, 1, 50)) failed = get(url, &to, size, path);
    return failed;
}
