/* Looks names up by the C library that it was linked with and connects to what they have, as told: prints a JSON line a step that
 * looks up.
 *
 *     lookup STEP...      connect:NAME:PORT  look NAME up and connect
 *                         leave:NAME         look NAME up, and leave the call by a jump when it has waited for a while
 *                         wait:SECONDS       do nothing
 */
#include <arpa/inet.h>
#include <err.h>
#include <netdb.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { LEAVE_AFTER_US = 300000 };

static sigjmp_buf out;

static void leave(int signal)
{
    (void)signal;
    siglongjmp(out, 1);
}

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static void print_end(const char *key, struct sockaddr_in *end)
{
    printf(", \"%s\": \"%s:%d\"", key, inet_ntoa(end->sin_addr), ntohs(end->sin_port));
}

static void look_up_and_connect(const char *name, const char *port)
{
    struct addrinfo hints = {.ai_family = AF_INET}, *answer;
    double began = now_ms();
    int failure = getaddrinfo(name, port, &hints, &answer);
    double took = now_ms() - began;
    if (failure)
        errx(1, "%s: %s", name, gai_strerror(failure));
    struct sockaddr_in local, remote;
    socklen_t length = sizeof local;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, answer->ai_addr, answer->ai_addrlen) || getsockname(fd, (void *)&local, &length))
        err(1, "cannot connect");
    memcpy(&remote, answer->ai_addr, sizeof remote);
    close(fd);
    freeaddrinfo(answer);
    printf("{\"took_ms\": %.6f", took);
    print_end("local", &local);
    print_end("remote", &remote);
    puts("}");
    fflush(stdout);
}

static void look_up_and_leave(const char *name)
{
    struct itimerval timer = {.it_value = {.tv_usec = LEAVE_AFTER_US}};
    struct addrinfo *answer;
    signal(SIGALRM, leave);
    if (sigsetjmp(out, 1))
        return;
    setitimer(ITIMER_REAL, &timer, NULL);
    getaddrinfo(name, NULL, NULL, &answer);
    errx(1, "the lookup of %s ended before it was left", name);
}

int main(int count, char **steps)
{
    for (int index = 1; index < count; index++) {
        char *what = strtok(steps[index], ":"), *name = strtok(NULL, ":"), *port = strtok(NULL, ":");
        if (!strcmp(what, "connect"))
            look_up_and_connect(name, port);
        else if (!strcmp(what, "leave"))
            look_up_and_leave(name);
        else
            usleep(1000000 * atof(name));
    }
}
