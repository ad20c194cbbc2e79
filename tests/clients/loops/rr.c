/* An exchange an iteration on one connection: 32 bytes out, 32 bytes back. */
#include "plain.h"

static int fd;

static void body(void) {
    exchange(fd);
}

int main(int argc, char **argv) {
    struct sockaddr_in server = start_server(echo);
    fd = connect_to(&server);
    measure(argc, argv, body);
}
