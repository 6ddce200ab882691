/* Runs a command and writes the peak of its resident memory, in KiB, to the file named first.

   The peak that wait4 tells includes that of the process that started the program, from before its exec: ours must be small. */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct rusage used;
    int status;
    if (argc < 3)
        return 64;
    pid_t child = fork();
    if (child == 0) {
        execv(argv[2], argv + 2);
        _exit(127);
    }
    if (child < 0 || wait4(child, &status, 0, &used) < 0)
        return 71;
    FILE *file = fopen(argv[1], "w");
    if (!file || fprintf(file, "%ld\n", used.ru_maxrss) < 0 || fclose(file))
        return 74;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 70;
}
