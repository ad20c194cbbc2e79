/* A client that is hard on whoever looks on: mode=seccomp forbids itself all system calls but those that it needs, and is killed
 * at the first other one; mode=longjmp leaves SSL_connect and SSL_read by longjmp out of a callback, again and again. Prints what it did.
 * Arguments: mode, port, rounds. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static void check(int ok, const char *what) {
    if (!ok) {
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        ERR_print_errors_fp(stderr);
        exit(1);
    }
}

static int connect_to(int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    check(fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0, "connect");
    return fd;
}

static void ask(SSL *session, int round) {
    char text[256];
    int length = snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: n%d.test\r\n\r\n", round);
    check(SSL_write(session, text, length) == length, "write");
    char answer[4096] = "";
    for (int taken = 0; !strstr(answer, "hello");) {
        int more = SSL_read(session, answer + taken, sizeof answer - 1 - taken);
        check(more > 0, "read");
        taken += more;
        answer[taken] = 0;
    }
    printf("%d %.12s\n", round, answer);
}

/* What a client needs that is connected; anything else kills it. */
static void forbid(void) {
#define ALLOW(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_##call, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(read), ALLOW(write), ALLOW(close), ALLOW(exit_group), ALLOW(exit), ALLOW(brk), ALLOW(mmap), ALLOW(munmap),
        ALLOW(mprotect), ALLOW(mremap), ALLOW(madvise), ALLOW(futex), ALLOW(getpid), ALLOW(getrandom), ALLOW(clock_gettime),
        ALLOW(gettimeofday), ALLOW(time), ALLOW(rt_sigreturn), ALLOW(rt_sigprocmask), ALLOW(newfstatat), ALLOW(fstat), ALLOW(sendto), ALLOW(recvfrom),
        ALLOW(shutdown), ALLOW(getuid), ALLOW(geteuid), ALLOW(getgid), ALLOW(getegid), ALLOW(openat), ALLOW(lseek),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no new privileges");
    check(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0, "seccomp");
}

static void under_a_filter(SSL_CTX *context, int port, int rounds) {
    SSL *sessions[rounds];
    for (int round = 0; round < rounds; round++) {
        sessions[round] = SSL_new(context);
        check(SSL_set_fd(sessions[round], connect_to(port)), "descriptor");
    }
    forbid();
    for (int round = 0; round < rounds; round++) {
        check(SSL_connect(sessions[round]) == 1, "handshake");
        ask(sessions[round], round);
        ask(sessions[round], round);
        SSL_free(sessions[round]);
    }
}

static jmp_buf out;
static int leaves;

static void leave(const SSL *session, int where, int result) {
    (void)session, (void)result;
    if (leaves && (where & SSL_CB_LOOP) && --leaves == 0)
        longjmp(out, 1);
}

static void connect_and_leave(SSL *session, int after) {
    SSL_set_info_callback(session, leave);
    leaves = after;
    if (setjmp(out) == 0)
        printf("not left: %d\n", SSL_connect(session));
    else
        printf("left\n");
    leaves = 0;
}

/* The session that was left is no good any more; the next one has a connection of its own. */
static void leaving(SSL_CTX *context, int port, int rounds) {
    for (int round = 0; round < rounds; round++) {
        SSL *left = SSL_new(context);
        int fd = connect_to(port);
        check(SSL_set_fd(left, fd), "descriptor");
        connect_and_leave(left, 1 + round % 6);
        SSL *session = SSL_new(context);
        check(SSL_set_fd(session, connect_to(port)) && SSL_connect(session) == 1, "handshake");
        ask(session, round);
        SSL_free(left);
        close(fd);
        ask(session, round);
        SSL_free(session);
    }
}

int main(int argc, char **argv) {
    check(argc == 4, "mode, port, rounds");
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    check(context != NULL, "context");
    setvbuf(stdout, NULL, _IOLBF, 256);
    printf("%s\n", argv[1]);
    (strcmp(argv[1], "seccomp") ? leaving : under_a_filter)(context, atoi(argv[2]), atoi(argv[3]));
    return 0;
}
