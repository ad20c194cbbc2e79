/* Preloaded into programs that do not tell how long their TLS handshakes take: a clock around OpenSSL's and GnuTLS's own
   functions. Appends one line of JSON a handshake to the file $TIMED_OUTPUT. Nothing of what the program does changes.
   The three parts of a handshake's time are those of client.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The next function of this name: the library's own. */
#define REAL(name) ((typeof(&name))real(#name))

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) { fprintf(stderr, "timed: no %s\n", name); abort(); }
    return found;
}

/* The handshake under way. These programs have one at a time. */
static struct { void *session; double began, hello, last; int fd; } now;

static double clock_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

static void begin(void *session) {
    if (now.session == session) return;
    now.session = session;
    now.began = clock_ms();
    now.hello = 0;
    now.fd = -1;
}

static void done(const char *client, const char *version, int resumed) {
    double end = clock_ms();
    now.session = NULL;
    struct sockaddr_storage address = {0};
    socklen_t length = sizeof address;
    getsockname(now.fd, (struct sockaddr *)&address, &length);
    /* The port is in the same place in both families' addresses. */
    int port = ntohs(((struct sockaddr_in *)&address)->sin_port);
    char line[512];
    int size = snprintf(line, sizeof line,
        "{\"client\":\"%s\",\"connect_ms\":null,\"before_hello_ms\":%.3f,\"handshake_ms\":%.3f,\"after_ms\":%.3f,\"first_byte_ms\":null,"
        "\"version\":\"%s\",\"sni\":null,\"resumed\":%s,\"exchanges\":null,\"local_port\":%d}\n",
        client, now.hello - now.began, now.last - now.hello, end - now.last, version, resumed ? "true" : "false", port);
    int file = open(getenv("TIMED_OUTPUT"), O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (file < 0 || REAL(write)(file, line, size) != size) { perror("timed"); abort(); }
    close(file);
}

static int is_socket(int fd) {
    int kind;
    socklen_t length = sizeof kind;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &length) == 0;
}

/* The first bytes that go to a socket while a handshake is under way are its ClientHello. */
static void sending(int fd) {
    if (!now.session || !is_socket(fd)) return;
    now.last = clock_ms();
    if (now.hello != 0) return;
    now.hello = now.last;
    now.fd = fd;
}

static ssize_t received(int fd, ssize_t size) {
    if (now.session && size > 0 && fd == now.fd) now.last = clock_ms();
    return size;
}

ssize_t write(int fd, const void *bytes, size_t size) { sending(fd); return REAL(write)(fd, bytes, size); }
ssize_t writev(int fd, const struct iovec *parts, int count) { sending(fd); return REAL(writev)(fd, parts, count); }
ssize_t send(int fd, const void *bytes, size_t size, int flags) { sending(fd); return REAL(send)(fd, bytes, size, flags); }
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) { sending(fd); return REAL(sendmsg)(fd, message, flags); }
ssize_t read(int fd, void *bytes, size_t size) { return received(fd, REAL(read)(fd, bytes, size)); }
ssize_t recv(int fd, void *bytes, size_t size, int flags) { return received(fd, REAL(recv)(fd, bytes, size, flags)); }
ssize_t recvmsg(int fd, struct msghdr *message, int flags) { return received(fd, REAL(recvmsg)(fd, message, flags)); }

/* OpenSSL. Clients call SSL_connect or SSL_do_handshake, or just write: each goes on with the handshake until it is done. */
struct ssl_st;
int SSL_is_init_finished(const struct ssl_st *);
int SSL_session_reused(const struct ssl_st *);
const char *SSL_get_version(const struct ssl_st *);
int SSL_connect(struct ssl_st *);
int SSL_do_handshake(struct ssl_st *);
int SSL_write(struct ssl_st *, const void *, int);
int SSL_read(struct ssl_st *, void *, int);

/* These are resolved when first used: GnuTLS's programs have no OpenSSL. */
static int finished(const struct ssl_st *ssl) { return REAL(SSL_is_init_finished)(ssl); }

static void openssl_done(const struct ssl_st *ssl) {
    if (!finished(ssl) || now.session != ssl) return;
    const char *version = REAL(SSL_get_version)(ssl);
    done("openssl", strncmp(version, "TLSv", 4) ? version : version + 4, REAL(SSL_session_reused)(ssl));
}

#define STEP(name, ssl, ...) \
    if (finished(ssl)) return REAL(name)(ssl, ##__VA_ARGS__); \
    begin(ssl); \
    int result = REAL(name)(ssl, ##__VA_ARGS__); \
    int saved = errno; \
    openssl_done(ssl); \
    errno = saved; \
    return result

int SSL_connect(struct ssl_st *ssl) { STEP(SSL_connect, ssl); }
int SSL_do_handshake(struct ssl_st *ssl) { STEP(SSL_do_handshake, ssl); }
int SSL_write(struct ssl_st *ssl, const void *bytes, int size) { STEP(SSL_write, ssl, bytes, size); }
int SSL_read(struct ssl_st *ssl, void *bytes, int size) { STEP(SSL_read, ssl, bytes, size); }

/* GnuTLS. */
struct gnutls_session_int;
int gnutls_handshake(struct gnutls_session_int *);
int gnutls_session_is_resumed(struct gnutls_session_int *);
int gnutls_protocol_get_version(struct gnutls_session_int *);
const char *gnutls_protocol_get_name(int);

int gnutls_handshake(struct gnutls_session_int *session) {
    begin(session);
    int result = REAL(gnutls_handshake)(session);
    if (result == 0) {
        const char *version = REAL(gnutls_protocol_get_name)(REAL(gnutls_protocol_get_version)(session));
        done("gnutls", strncmp(version, "TLS", 3) ? version : version + 3, REAL(gnutls_session_is_resumed)(session));
    }
    return result;
}
