/* The same as client.py in C on OpenSSL's own interface: one thread with all connections, each with a number of its own that all its
 * requests bear in the Host header. Settings are key=value words: port, connections, requests. idle=1: does nothing until it is
 * killed. Fails unless each request was answered. */
#include <arpa/inet.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void check(int ok, const char *what) {
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static const char *setting(char **words, const char *name) {
    size_t length = strlen(name);
    for (; *words; words++)
        if (strncmp(*words, name, length) == 0 && (*words)[length] == '=')
            return *words + length + 1;
    return "0";
}

static int connect_to(int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    check(fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0, "connect");
    return fd;
}

static void ask(SSL *session, int number) {
    char text[256];
    int length = snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: n%d.test\r\n\r\n", number);
    check(SSL_write(session, text, length) == length, "write");
}

static void await_answer(SSL *session) {
    char answer[4096] = "";
    for (int taken = 0; !strstr(answer, "hello\n");) {
        int more = SSL_read(session, answer + taken, sizeof answer - 1 - taken);
        check(more > 0, "read");
        taken += more;
        answer[taken] = 0;
    }
    check(strncmp(answer, "HTTP/1.1 200", 12) == 0, "status");
}

int main(int count, char **words) {
    (void)count;
    if (atoi(setting(words, "idle")))
        for (;;)
            pause();
    int port = atoi(setting(words, "port")), connections = atoi(setting(words, "connections"));
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    check(context != NULL, "context");
    SSL **sessions = calloc(connections, sizeof *sessions);
    for (int number = 0; number < connections; number++) {
        sessions[number] = SSL_new(context);
        check(sessions[number] && SSL_set_fd(sessions[number], connect_to(port)), "descriptor");
        check(SSL_connect(sessions[number]) == 1, "handshake");
    }
    for (int round = atoi(setting(words, "requests")); round > 0; round--) {
        for (int number = 0; number < connections; number++)
            ask(sessions[number], number);
        for (int number = 0; number < connections; number++)
            await_answer(sessions[number]);
    }
    return 0;
}
