/* A connection an iteration: socket, connect, 32 bytes out, 32 bytes back, close. */
#include "plain.h"

static struct sockaddr_in server;

static void body(void) {
    int fd = connect_to(&server);
    exchange(fd);
    close(fd);
}

int main(int argc, char **argv) {
    server = start_server(echo);
    measure(argc, argv, body);
}
