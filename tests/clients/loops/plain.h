/* Messages of 32 bytes over plain TCP, and the server that sends them back. */
#include "loop.h"

#define MESSAGE_BYTES 32

static void read_message(int fd) {
    char message[MESSAGE_BYTES];
    check(recv(fd, message, sizeof message, MSG_WAITALL) == sizeof message, "recv");
}

static void write_message(int fd) {
    /* On the stack, like what most programs send. A constant's page may not be there yet when the kernel side looks at it. */
    char message[MESSAGE_BYTES] = "ping";
    check(send(fd, message, sizeof message, 0) == sizeof message, "send");
}

static void echo(int fd) {
    char message[MESSAGE_BYTES];
    while (recv(fd, message, sizeof message, MSG_WAITALL) == sizeof message)
        write_message(fd);
}

static void exchange(int fd) {
    write_message(fd);
    read_message(fd);
}
