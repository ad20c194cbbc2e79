/* Preloaded into programs whose own clock is far from their sockets: Node calls back when its event loop comes to it, and Java's
   HttpClient hands bytes from thread to thread. A clock right beside the system calls that send and receive. It follows the
   headers of the TLS records and appends one line of JSON a handshake to the file $TIMED_OUTPUT:
     {"local_port": 40000, "handshake_ms": 1.5}
   from just before the first byte of the ClientHello is sent to the handshake's last message: just before it is sent, or just
   after it was received. Nothing of what the program does changes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The next function of this name: the library's own. */
#define REAL(name) ((typeof(&name))real(#name))

enum { CLIENT_HELLO = 1, CHANGE_CIPHER = 20, HANDSHAKE = 22, DATA = 23, HEADER = 5, FDS = 1024 };
enum { SENT, RECEIVED, WAYS };

/* One way of a connection: what has come of the next record's header, how much of the body is to come, and whether its sender
   has changed its cipher. */
struct way { unsigned char header[HEADER]; int have, remaining, changed; };

/* A connection that began with a ClientHello, until its handshake is over. */
static struct handshake { double began; int is_on; struct way ways[WAYS]; } handshakes[FDS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) { fprintf(stderr, "wire_clock: no %s\n", name); abort(); }
    return found;
}

static double clock_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

static int is_tcp(int fd) {
    int kind;
    socklen_t length = sizeof kind;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &length) == 0 && kind == SOCK_STREAM;
}

static void done(int fd, double ended) {
    handshakes[fd].is_on = 0;
    struct sockaddr_storage address = {0};
    socklen_t length = sizeof address;
    getsockname(fd, (struct sockaddr *)&address, &length);
    /* The port is in the same place in both families' addresses. */
    int port = ntohs(((struct sockaddr_in *)&address)->sin_port);
    char line[128];
    int size = snprintf(line, sizeof line, "{\"local_port\":%d,\"handshake_ms\":%.3f}\n", port, ended - handshakes[fd].began);
    int file = open(getenv("TIMED_OUTPUT"), O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (file < 0 || REAL(write)(file, line, size) != size) { perror("wire_clock"); abort(); }
    close(file);
}

/* Whether a record is the last of the handshake. TLS 1.3: the client's first protected one, which looks like data. Up to 1.2:
   the one after both sides have changed their ciphers. */
static int is_last(const struct handshake *handshake, int way, int type) {
    int both = handshake->ways[SENT].changed && handshake->ways[RECEIVED].changed;
    return (type == DATA && way == SENT) || (type == HANDSHAKE && both);
}

static void record(int fd, int way, int type, double at) {
    struct handshake *handshake = &handshakes[fd];
    if (is_last(handshake, way, type))
        done(fd, at);
    else if (type == CHANGE_CIPHER)
        handshake->ways[way].changed = 1;
}

static void follow(int fd, int way, const unsigned char *bytes, size_t size, double at) {
    struct way *this = &handshakes[fd].ways[way];
    while (size > 0 && handshakes[fd].is_on) {
        if (this->remaining > 0) {
            size_t passed = size < (size_t)this->remaining ? size : (size_t)this->remaining;
            this->remaining -= passed, bytes += passed, size -= passed;
            continue;
        }
        this->header[this->have++] = *bytes;
        bytes += 1, size -= 1;
        if (this->have < HEADER) continue;
        this->have = 0;
        this->remaining = this->header[3] << 8 | this->header[4];
        record(fd, way, this->header[0], at);
    }
}

static void passed(int fd, int way, const struct iovec *parts, int count, size_t size, double at) {
    if (fd < 0 || fd >= FDS || count < 1 || size == 0) return;
    int saved = errno;
    pthread_mutex_lock(&lock);
    const unsigned char *first = parts[0].iov_base;
    int is_hello = parts[0].iov_len > HEADER && first[0] == HANDSHAKE && first[HEADER] == CLIENT_HELLO;
    if (!handshakes[fd].is_on && way == SENT && is_hello && is_tcp(fd))
        handshakes[fd] = (struct handshake){ .began = at, .is_on = 1 };
    for (int part = 0; part < count && size > 0 && handshakes[fd].is_on; part++) {
        size_t length = parts[part].iov_len < size ? parts[part].iov_len : size;
        follow(fd, way, parts[part].iov_base, length, at);
        size -= length;
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
}

/* What was not sent comes again, so what passes is known only afterwards; the time is that before. */
#define SEND(fd, parts, count, call) \
    double at = clock_ms(); \
    ssize_t size = call; \
    if (size > 0) passed(fd, SENT, parts, count, size, at); \
    return size

#define RECEIVE(fd, parts, count, call) \
    ssize_t size = call; \
    if (size > 0) passed(fd, RECEIVED, parts, count, size, clock_ms()); \
    return size

static struct iovec one(const void *bytes, size_t length) {
    return (struct iovec){ .iov_base = (void *)bytes, .iov_len = length };
}

ssize_t write(int fd, const void *bytes, size_t length) {
    struct iovec part = one(bytes, length);
    SEND(fd, &part, 1, REAL(write)(fd, bytes, length));
}

ssize_t send(int fd, const void *bytes, size_t length, int flags) {
    struct iovec part = one(bytes, length);
    SEND(fd, &part, 1, REAL(send)(fd, bytes, length, flags));
}

ssize_t writev(int fd, const struct iovec *parts, int count) { SEND(fd, parts, count, REAL(writev)(fd, parts, count)); }

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    SEND(fd, message->msg_iov, message->msg_iovlen, REAL(sendmsg)(fd, message, flags));
}

ssize_t read(int fd, void *bytes, size_t length) {
    struct iovec part = one(bytes, length);
    RECEIVE(fd, &part, 1, REAL(read)(fd, bytes, length));
}

ssize_t recv(int fd, void *bytes, size_t length, int flags) {
    struct iovec part = one(bytes, length);
    RECEIVE(fd, &part, 1, REAL(recv)(fd, bytes, length, flags));
}

ssize_t readv(int fd, const struct iovec *parts, int count) { RECEIVE(fd, parts, count, REAL(readv)(fd, parts, count)); }

ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    RECEIVE(fd, message->msg_iov, message->msg_iovlen, REAL(recvmsg)(fd, message, flags));
}
