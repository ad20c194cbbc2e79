/* Preloaded into a program that loads BPF: asks the kernel's verifier for its statistics whenever a program is loaded, and
 * appends a line for each that was accepted to the file that VERIFIER_COUNTS names:
 *   processed NAME INSTRUCTIONS        NAME is cut to 15 characters, as the kernel knows it
 * The verifier prints them on every kernel; the kernel itself tells the number only from 5.16 on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/bpf.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#define STATISTICS_ONLY 4 /* BPF_LOG_STATS, which is in no header for user space */

static long (*real_syscall)(long, ...);

static void report(const union bpf_attr *attr, const char *log) {
    const char *path = getenv("VERIFIER_COUNTS");
    const char *count = strstr(log, "processed ");
    FILE *file = path && count ? fopen(path, "a") : NULL;
    if (!file)
        return;
    fprintf(file, "processed %.*s %lu\n", BPF_OBJ_NAME_LEN - 1, attr->prog_name, strtoul(count + 10, NULL, 10));
    fclose(file);
}

long syscall(long number, ...) {
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    if (!real_syscall)
        real_syscall = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    const union bpf_attr *asked = (const union bpf_attr *)a[1];
    /* A caller with a log of its own wants to know why it was refused before. */
    if (number == SYS_bpf && (int)a[0] == BPF_PROG_LOAD && asked->log_level == 0 && asked->prog_name[0]) {
        char log[4096] = "";
        union bpf_attr attr = {0};
        size_t size = (size_t)a[2] < sizeof attr ? (size_t)a[2] : sizeof attr;
        memcpy(&attr, asked, size);
        attr.log_level = STATISTICS_ONLY;
        attr.log_buf = (unsigned long)log;
        attr.log_size = sizeof log;
        long result = real_syscall(number, a[0], &attr, size);
        if (result >= 0) {
            report(&attr, log);
            return result;
        }
    }
    return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
