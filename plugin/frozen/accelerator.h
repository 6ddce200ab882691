/* What the accelerator has done of a call before it hands over: Python goes on from there. */
#pragma once
#include <stddef.h>

enum { UNUSUAL = -1, LARGEST = 1 << 16 };

struct begun {
    char stdin_read[LARGEST], received[LARGEST]; /* as far as it came; from the agent */
    size_t stdin_size, received_size;
    int agent;    /* connected, and has been sent the whole request; -1 if not */
    double since; /* when it was asked, by CLOCK_MONOTONIC; 0 if it was not */
};

extern struct begun begun;
int accelerate(char *const *environment, struct begun *begun); /* the exit status, or UNUSUAL */
