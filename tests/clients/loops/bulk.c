/* A write of 64 KB an iteration on one connection, to a server that throws everything away. */
#include "loop.h"

static char block[64 * 1024];
static int fd;

static void drain(int accepted) {
    while (recv(accepted, block, sizeof block, 0) > 0)
        continue;
}

static void body(void) {
    for (size_t sent = 0; sent < sizeof block;) {
        ssize_t more = send(fd, block + sent, sizeof block - sent, 0);
        check(more > 0, "send");
        sent += (size_t)more;
    }
}

int main(int argc, char **argv) {
    struct sockaddr_in server = start_server(drain);
    /* What was never written has no page, and nothing of it could be looked at. */
    for (size_t i = 0; i < sizeof block; i++)
        block[i] = (char)i;
    fd = connect_to(&server);
    measure(argc, argv, body);
}
