/* An exchange an iteration on one TLS connection: 100 bytes out, 100 bytes back. */
#include "tls.h"

static SSL *session;

static void body(void) {
    exchange(session);
}

int main(int argc, char **argv) {
    struct sockaddr_in server = start_tls_server();
    session = connect_tls(&server);
    measure(argc, argv, body);
}
