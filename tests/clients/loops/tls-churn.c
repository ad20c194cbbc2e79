/* A TLS connection an iteration: connect, full handshake, 100 bytes out, 100 bytes back, close_notify, close. */
#include "tls.h"

static struct sockaddr_in server;

static void body(void) {
    SSL *session = connect_tls(&server);
    int fd = SSL_get_fd(session);
    exchange(session);
    SSL_shutdown(session);
    SSL_free(session);
    close(fd);
}

int main(int argc, char **argv) {
    server = start_tls_server();
    measure(argc, argv, body);
}
