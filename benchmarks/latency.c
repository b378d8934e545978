/* Loaded before the C library (LD_PRELOAD): each call that a network file system would ask its
 * server for waits first, if it is about a file below a folder. PIPESTREAM_LATENCY_BELOW names the
 * folder, PIPESTREAM_LATENCY_US is the wait in microseconds.
 *
 * Not waited for is what a client has at hand, or does later: read, write, seek, fstat of what it
 * has just opened, the entries of a folder that is open, and the close of a file that was read. The
 * close of one that was written waits, since NFS sends it then. */

#define _GNU_SOURCE
#undef _FILE_OFFSET_BITS
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static char root[512];
static size_t root_size;
static long wait_us;
static long calls;

__attribute__((constructor)) static void begin(void)
{
    const char *below = getenv("PIPESTREAM_LATENCY_BELOW"), *us = getenv("PIPESTREAM_LATENCY_US");
    if (!below || !us)
        return;
    snprintf(root, sizeof root, "%s/", below);
    root_size = strlen(root);
    wait_us = atol(us);
}

/* How many calls waited. */
long latency_calls(void) { return __atomic_load_n(&calls, __ATOMIC_SEQ_CST); }

static void at_path(const char *path)
{
    if (!root_size || !path || strncmp(path, root, root_size))
        return;
    __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    struct timespec left = {wait_us / 1000000, wait_us % 1000000 * 1000};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left))
        ;
}

static void at_handle(int handle)
{
    if (!root_size)
        return;
    char link[40], path[1024];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    long size = syscall(SYS_readlink, link, path, sizeof path - 2);
    if (size <= 0)
        return;
    strcpy(path + size, "/"); /* the folder itself is below, too */
    at_path(path);
}

static void at_either(int folder, const char *path)
{
    if (folder == AT_FDCWD || (path && path[0] == '/'))
        at_path(path);
    else
        at_handle(folder);
}

#define WAITS(type, name, parameters, arguments, where) \
    type name parameters                                \
    {                                                   \
        static type(*real) parameters;                  \
        if (!real)                                      \
            real = dlsym(RTLD_NEXT, #name);             \
        where;                                          \
        return real arguments;                          \
    }

#define OPENS(name, first, argument, where)                         \
    int name(first const char *path, int options, ...)              \
    {                                                               \
        static int (*real)(first const char *, int, ...);           \
        if (!real)                                                  \
            real = dlsym(RTLD_NEXT, #name);                         \
        va_list more;                                               \
        va_start(more, options);                                    \
        int mode = va_arg(more, int);                               \
        va_end(more);                                               \
        where;                                                      \
        return real(argument path, options, mode);                  \
    }
#define COMMA ,
OPENS(open, , , at_path(path))
OPENS(open64, , , at_path(path))
OPENS(openat, int folder COMMA, folder COMMA, at_either(folder, path))
OPENS(openat64, int folder COMMA, folder COMMA, at_either(folder, path))

WAITS(DIR *, opendir, (const char *p), (p), at_path(p))
WAITS(int, stat, (const char *p, struct stat *s), (p, s), at_path(p))
WAITS(int, stat64, (const char *p, struct stat64 *s), (p, s), at_path(p))
WAITS(int, lstat, (const char *p, struct stat *s), (p, s), at_path(p))
WAITS(int, lstat64, (const char *p, struct stat64 *s), (p, s), at_path(p))
WAITS(int, fstatat, (int f, const char *p, struct stat *s, int o), (f, p, s, o), at_either(f, p))
WAITS(int, fstatat64, (int f, const char *p, struct stat64 *s, int o), (f, p, s, o),
      at_either(f, p))
WAITS(int, access, (const char *p, int m), (p, m), at_path(p))
WAITS(int, faccessat, (int f, const char *p, int m, int o), (f, p, m, o), at_either(f, p))
WAITS(ssize_t, readlink, (const char *p, char *b, size_t n), (p, b, n), at_path(p))
WAITS(ssize_t, readlinkat, (int f, const char *p, char *b, size_t n), (f, p, b, n),
      at_either(f, p))
WAITS(int, flock, (int h, int o), (h, o), at_handle(h))
WAITS(int, rename, (const char *a, const char *b), (a, b), at_path(a))
WAITS(int, renameat, (int f, const char *a, int g, const char *b), (f, a, g, b), at_either(f, a))
WAITS(int, link, (const char *a, const char *b), (a, b), at_path(b))
WAITS(int, linkat, (int f, const char *a, int g, const char *b, int o), (f, a, g, b, o),
      at_either(g, b))
WAITS(int, symlink, (const char *a, const char *b), (a, b), at_path(b))
WAITS(int, symlinkat, (const char *a, int f, const char *b), (a, f, b), at_either(f, b))
WAITS(int, unlink, (const char *p), (p), at_path(p))
WAITS(int, unlinkat, (int f, const char *p, int o), (f, p, o), at_either(f, p))
WAITS(int, mkdir, (const char *p, mode_t m), (p, m), at_path(p))
WAITS(int, mkdirat, (int f, const char *p, mode_t m), (f, p, m), at_either(f, p))
WAITS(int, rmdir, (const char *p), (p), at_path(p))
WAITS(int, chmod, (const char *p, mode_t m), (p, m), at_path(p))
WAITS(int, fchmod, (int h, mode_t m), (h, m), at_handle(h))
WAITS(int, fchmodat, (int f, const char *p, mode_t m, int o), (f, p, m, o), at_either(f, p))
WAITS(int, chown, (const char *p, uid_t u, gid_t g), (p, u, g), at_path(p))
WAITS(int, fchown, (int h, uid_t u, gid_t g), (h, u, g), at_handle(h))
WAITS(int, utimensat, (int f, const char *p, const struct timespec t[2], int o), (f, p, t, o),
      at_either(f, p))
WAITS(int, futimens, (int h, const struct timespec t[2]), (h, t), at_handle(h))
WAITS(int, ftruncate, (int h, off_t n), (h, n), at_handle(h))
WAITS(int, ftruncate64, (int h, off64_t n), (h, n), at_handle(h))
WAITS(int, fsync, (int h), (h), at_handle(h))
WAITS(int, fdatasync, (int h), (h), at_handle(h))

int close(int handle)
{
    static int (*real)(int);
    if (!real)
        real = dlsym(RTLD_NEXT, "close");
    int options = root_size ? fcntl(handle, F_GETFL) : -1;
    if (options != -1 && (options & O_ACCMODE) == O_WRONLY) /* a lock's handle is of both */
        at_handle(handle);
    return real(handle);
}
