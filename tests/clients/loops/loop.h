/* What all loops share: a server in a process of its own, the clock, and the report.
 *
 * Each loop is started as `LOOP WARM_UP COUNT [TRACER_PID]`. It prints two numbers:
 *   nanoseconds of one iteration, the tracer's remaining work included;
 *   of these, nanoseconds in which the tracer's own threads ran.
 * In a VM that counts instructions, a nanosecond is an instruction. */
#include <arpa/inet.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* A tracer that reads in batches still has work when the loop ends; by then it is done. */
#define TAIL_SECONDS 3

static void check(int ok, const char *what) {
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static long long now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* Nanoseconds in which the threads of a process ran; 0 if there is no process to look at. */
static long long cpu_ns(const char *pid) {
    char path[64];
    if (!pid)
        return 0;
    snprintf(path, sizeof path, "/proc/%s/task", pid);
    DIR *tasks = opendir(path);
    check(tasks != NULL, path);
    long long sum = 0;
    for (struct dirent *task; (task = readdir(tasks));) {
        long long ran;
        if (task->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/%s/task/%.16s/schedstat", pid, task->d_name);
        FILE *file = fopen(path, "r");
        if (file && fscanf(file, "%lld", &ran) == 1)
            sum += ran;
        if (file)
            fclose(file);
    }
    closedir(tasks);
    return sum;
}

static void serve(int listener, void (*talk)(int fd)) {
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        check(fd >= 0, "accept");
        talk(fd);
        close(fd);
    }
}

/* Starts a server in a process of its own, which hands each connection to `talk`; returns its address. */
static struct sockaddr_in start_server(void (*talk)(int fd)) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    check(bind(listener, (struct sockaddr *)&address, sizeof address) == 0, "bind");
    check(listen(listener, 16) == 0, "listen");
    check(getsockname(listener, (struct sockaddr *)&address, &length) == 0, "getsockname");
    int child = fork();
    check(child >= 0, "fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(listener, talk);
    }
    close(listener);
    return address;
}

static int connect_to(const struct sockaddr_in *server) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    check(connect(fd, (const struct sockaddr *)server, sizeof *server) == 0, "connect");
    return fd;
}

/* Runs the loop's body often enough and prints what one run cost. */
static void measure(int argc, char **argv, void (*body)(void)) {
    check(argc >= 3, "usage: LOOP WARM_UP COUNT [TRACER_PID]");
    long warm_up = atol(argv[1]), count = atol(argv[2]);
    const char *tracer = argc > 3 ? argv[3] : NULL;
    for (long i = 0; i < warm_up; i++)
        body();
    sleep(TAIL_SECONDS);
    long long tracer_began = cpu_ns(tracer);
    long long began = now_ns();
    for (long i = 0; i < count; i++)
        body();
    long long ended = now_ns();
    long long tracer_ended = cpu_ns(tracer);
    sleep(TAIL_SECONDS);
    long long tracer_done = cpu_ns(tracer);
    printf("%lld %lld\n", (ended - began + tracer_done - tracer_ended) / count, (tracer_done - tracer_began) / count);
}
