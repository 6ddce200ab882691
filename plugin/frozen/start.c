/* The accelerator before the C library has started: on x86-64 the library asks the processor again and again what it can do,
 * which a virtual machine's host answers, and touches forty pages. That is more than half of what a VERSION takes.
 *
 * So nothing of the C library can be called here, as its functions are chosen and its thread is set up only later: system calls
 * are made directly, and the few functions on strings are our own (own.h). The object needs `_start` and `begun` alone; a test
 * holds it to that. */
#include "accelerator.h"
#include <elf.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static long ask_kernel(long number, long a, long b, long c, long d) { /* -errno on failure */
#if defined __aarch64__
    register long x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c, x3 __asm__("x3") = d;
    register long x8 __asm__("x8") = number;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x1), "r"(x2), "r"(x3), "r"(x8) : "memory");
    return x0;
#elif defined __x86_64__
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "+a"(number) : "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return number;
#else
#error "how the kernel is asked is known for x86-64 and arm64 alone"
#endif
}

#define SYSTEM(name, a, b, c, d) ask_kernel(SYS_##name, (long)(a), (long)(b), (long)(c), (long)(d))
#define read(fd, to, room) SYSTEM(read, fd, to, room, 0)
#define write(fd, from, size) SYSTEM(write, fd, from, size, 0)
#define open(path, flags) (int)SYSTEM(openat, AT_FDCWD, path, flags, 0)
#define close(fd) SYSTEM(close, fd, 0, 0, 0)
#define socket(family, kind, protocol) (int)SYSTEM(socket, family, kind, protocol, 0)
#define connect(fd, to, size) SYSTEM(connect, fd, to, size, 0)
#define sendmsg(fd, message, flags) SYSTEM(sendmsg, fd, message, flags, 0)
#define recv(fd, to, room, no_flags) SYSTEM(read, fd, to, room, 0)
#define poll(fds, count, ms) SYSTEM(ppoll, fds, count, (&(struct timespec){(ms) / 1000, (ms) % 1000 * 1000000}), 0)
#define clock_gettime(clock, time) SYSTEM(clock_gettime, clock, time, 0, 0)
#include "own.h"
#include "accelerator.c"

/* Of -mstack-protector-guard=global, as there is no thread yet. Weak, as arm64's C library has it too, and sets it again. */
__attribute__((weak)) uintptr_t __stack_chk_guard;
__attribute__((noreturn)) void __stack_chk_fail(void) { __builtin_trap(); }

/* Called with the stack as the kernel made it: argc, argv, NULL, environment, NULL, auxiliary vector. */
__attribute__((no_stack_protector, used)) static void begin(uintptr_t *stack) {
    char **environment = (char **)stack + stack[0] + 2, **end = environment;
    while (*end) end++;
    for (Elf64_auxv_t *each = (Elf64_auxv_t *)(end + 1); each->a_type != AT_NULL; each++)
        if (each->a_type == AT_RANDOM) __stack_chk_guard = *(uintptr_t *)each->a_un.a_val & ~(uintptr_t)255;
    struct { void (*handler)(int); unsigned long flags; void *restorer; unsigned long mask; } ignore = {.handler = SIG_IGN};
    SYSTEM(rt_sigaction, SIGPIPE, &ignore, 0, sizeof ignore.mask); /* as `main` has it */
    int status = accelerate(environment, &begun);
    if (status != UNUSUAL) SYSTEM(exit_group, status, 0, 0, 0);
}

__asm__(".globl start\n" /* begin(stack), then _start with the stack as it was, and no function to call at exit */
#if defined __aarch64__
        "start: mov x0, sp\n"
        "bl begin\n"
        "mov x0, 0\n"
        "b _start\n"
#else
        "start: mov %rsp, %rdi\n"
        "call begin\n"
        "xor %edx, %edx\n"
        "jmp _start\n"
#endif
);
