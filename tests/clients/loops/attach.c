/* How long a tracer takes until it traces, and what of that is its own processor time.
 *   attach MARK WORD...      starts the words with a terminal to write to, waits until they have written the mark, interrupts them
 * Prints: nanoseconds until the mark, processor nanoseconds until the mark, nanoseconds from the interrupt to the end. */
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now(clockid_t clock) {
    struct timespec time;
    if (clock_gettime(clock, &time) != 0) {
        perror("clock_gettime");
        exit(1);
    }
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* Reads until the mark has come; what a tracer says before it is short. */
static void await(int terminal, const char *mark) {
    static char text[1 << 16];
    size_t length = 0;
    while (strstr(text, mark) == NULL) {
        ssize_t more = read(terminal, text + length, sizeof text - 1 - length);
        if (more <= 0) {
            fprintf(stderr, "no '%s' in: %s\n", mark, text);
            exit(1);
        }
        length += more;
    }
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fputs("usage: attach MARK WORD...\n", stderr);
        return 1;
    }
    int terminal;
    long long begin = now(CLOCK_MONOTONIC);
    pid_t pid = forkpty(&terminal, NULL, NULL, NULL);
    if (pid < 0) {
        perror("forkpty");
        return 1;
    }
    if (pid == 0) {
        execvp(argv[2], argv + 2);
        perror(argv[2]);
        _exit(127);
    }
    await(terminal, argv[1]);
    long long ready = now(CLOCK_MONOTONIC);
    clockid_t its_clock;
    if (clock_getcpuclockid(pid, &its_clock) != 0) {
        fputs("no processor clock\n", stderr);
        return 1;
    }
    long long processor = now(its_clock);
    long long interrupted = now(CLOCK_MONOTONIC);
    kill(pid, SIGINT);
    char rest[4096];
    while (read(terminal, rest, sizeof rest) > 0) {
    }
    int status;
    waitpid(pid, &status, 0);
    /* libbpf-tools end by the signal, or with 0 or 1. */
    if (WIFSIGNALED(status) && WTERMSIG(status) != SIGINT) {
        fprintf(stderr, "%s died of signal %d\n", argv[2], WTERMSIG(status));
        return 1;
    }
    printf("%lld %lld %lld\n", ready - begin, processor, now(CLOCK_MONOTONIC) - interrupted);
}
