// The first process of a PID namespace: holds it, and reaps what is left to it. SIGTERM ends it.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int signal) { (void)signal; _exit(0); }

static void reap(int signal) {
    (void)signal;
    while (waitpid(-1, NULL, WNOHANG) > 0) {}
}

int main(void) {
    signal(SIGINT, end);
    signal(SIGTERM, end);
    signal(SIGCHLD, reap);
    reap(SIGCHLD);  // what ended before the handler was there
    for (;;) pause();
}
