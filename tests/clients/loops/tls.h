/* Messages of 100 bytes over TLS 1.3 by OpenSSL 3, and the server that sends them back. The server's key and its
 * certificate, which it signs itself, are made at the start. */
#include "loop.h"

#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#define MESSAGE_BYTES 100
#define CERTIFICATE_SECONDS (24 * 60 * 60)

static SSL_CTX *client_context, *server_context;

static void check_tls(int ok, const char *what) {
    if (!ok) {
        fprintf(stderr, "%s: ", what);
        ERR_print_errors_fp(stderr);
        exit(1);
    }
}

static void certify(SSL_CTX *context) {
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    check_tls(key && certificate, "key");
    X509_NAME *name = X509_get_subject_name(certificate);
    check_tls(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"localhost", -1, -1, 0), "name");
    check_tls(X509_set_issuer_name(certificate, name) && X509_set_pubkey(certificate, key), "certificate");
    check_tls(X509_gmtime_adj(X509_getm_notBefore(certificate), 0) != NULL, "notBefore");
    check_tls(X509_gmtime_adj(X509_getm_notAfter(certificate), CERTIFICATE_SECONDS) != NULL, "notAfter");
    check_tls(X509_set_version(certificate, X509_VERSION_3) && X509_sign(certificate, key, EVP_sha256()), "sign");
    check_tls(SSL_CTX_use_certificate(context, certificate) == 1 && SSL_CTX_use_PrivateKey(context, key) == 1, "use");
}

static SSL_CTX *new_context(const SSL_METHOD *method) {
    SSL_CTX *context = SSL_CTX_new(method);
    check_tls(context && SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION), "context");
    return context;
}

/* Without TCP_NODELAY a message would wait for the acknowledgement of the handshake's end, and waiting is counted here. */
static SSL *session_on(SSL_CTX *context, int fd) {
    check(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)) == 0, "TCP_NODELAY");
    SSL *session = SSL_new(context);
    check_tls(session && SSL_set_fd(session, fd), "session");
    return session;
}

static int read_message(SSL *session) {
    char message[MESSAGE_BYTES];
    return SSL_read(session, message, sizeof message) == sizeof message;
}

static void write_message(SSL *session) {
    static const char message[MESSAGE_BYTES];
    check_tls(SSL_write(session, message, sizeof message) == sizeof message, "write");
}

static void echo(int fd) {
    SSL *session = session_on(server_context, fd);
    check_tls(SSL_accept(session) == 1, "accept");
    while (read_message(session))
        write_message(session);
    SSL_free(session);
}

/* Starts the server; returns its address. */
static struct sockaddr_in start_tls_server(void) {
    client_context = new_context(TLS_client_method());
    server_context = new_context(TLS_server_method());
    certify(server_context);
    return start_server(echo);
}

/* A new connection with a full handshake: no session is ever resumed. */
static SSL *connect_tls(const struct sockaddr_in *server) {
    SSL *session = session_on(client_context, connect_to(server));
    check_tls(SSL_connect(session) == 1, "connect");
    return session;
}

static void exchange(SSL *session) {
    write_message(session);
    check_tls(read_message(session), "read");
}
