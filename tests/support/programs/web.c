// web NAME PORT: an HTTP server, IPv4 and IPv6, one request at a time. Each answer is one line: NAME and the address that asked.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static int fail(const char *what) { perror(what); return 1; }

// Reads a request up to the empty line that ends its head; requests that bring a body are not for this server.
static int read_head(int client) {
    char head[8192];
    size_t length = 0;
    while (length < sizeof head - 1) {
        ssize_t got = read(client, head + length, sizeof head - 1 - length);
        if (got <= 0) return 0;
        length += (size_t)got;
        head[length] = 0;
        if (strstr(head, "\r\n\r\n")) return 1;
    }
    return 0;
}

static void answer(int client, const struct sockaddr_in6 *peer, const char *name) {
    char address[INET6_ADDRSTRLEN], body[512], text[1024];
    inet_ntop(AF_INET6, &peer->sin6_addr, address, sizeof address);
    const char *plain = IN6_IS_ADDR_V4MAPPED(&peer->sin6_addr) ? strrchr(address, ':') + 1 : address;
    int size = snprintf(body, sizeof body, "%s %s\n", name, plain);
    int length = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n"
                          "Connection: close\r\n\r\n%s", size, body);
    if (write(client, text, (size_t)length) != length) perror("write");
}

int main(int argc, char **argv) {
    int port = argc == 3 ? atoi(argv[2]) : 0;
    if (port < 1 || port > 65535 || strlen(argv[1]) > 200) {
        fputs("usage: web NAME PORT\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, _exit);
    struct sockaddr_in6 here = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    int listener = socket(AF_INET6, SOCK_STREAM, 0), on = 1, off = 0;
    if (listener < 0) return fail("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(listener, (struct sockaddr *)&here, sizeof here)) return fail("bind");
    if (listen(listener, 64)) return fail("listen");
    printf("%s serves on port %d\n", argv[1], port);
    fflush(stdout);
    for (;;) {
        struct sockaddr_in6 peer;
        socklen_t size = sizeof peer;
        int client = accept(listener, (struct sockaddr *)&peer, &size);
        if (client < 0) return fail("accept");
        struct timeval patience = {.tv_sec = 30};
        setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        if (read_head(client)) answer(client, &peer, argv[1]);
        close(client);
    }
}
