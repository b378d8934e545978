/* Loaded before the C library (LD_PRELOAD): fails, or kills the process at, the n-th call by which
 * it asks for or changes a file below a folder. All other calls go through as they are. What is to
 * happen, and what did, stands in memory that a process shares with those that it forks. */

#define _GNU_SOURCE
#undef _FILE_OFFSET_BITS
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ASK = 1, CHANGE = 2 };
enum { NOTHING, ERROR_INSTEAD, KILL_BEFORE, KILL_AFTER, ERROR_AFTER };

struct state {
    int armed;
    int mask;          /* the kinds of calls that count: ASK, CHANGE or both */
    int action;
    int error;
    long first, last;  /* the numbers of the calls at which it happens */
    long killed_later; /* if not 0: killed so many calls after it happened first */
    long asked, changed, counted, hits, later;
    char name[32];     /* the call at which it happened first */
    char path[256];
    char root[256];
    int log;           /* a file to which each counted call is written, or -1 */
};
static struct state *state;

__attribute__((constructor)) static void begin(void)
{
    state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    state->log = -1;
}

void faults_arm(const char *root, int mask, int action, int error, long first, long last,
                long killed_later, int log)
{
    memset(state, 0, sizeof *state);
    strncpy(state->root, root, sizeof state->root - 1);
    state->mask = mask, state->action = action, state->error = error;
    state->first = first, state->last = last, state->killed_later = killed_later;
    state->log = log;
    state->armed = 1;
}
void faults_disarm(void) { state->armed = 0; }
long faults_asked(void) { return state->asked; }
long faults_changed(void) { return state->changed; }
long faults_hits(void) { return state->hits; }
const char *faults_name(void) { return state->name; }
const char *faults_path(void) { return state->path; }

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* What is to happen at this call of the process. */
static int consult(int kind, const char *name, const char *path)
{
    __atomic_add_fetch(kind == ASK ? &state->asked : &state->changed, 1, __ATOMIC_SEQ_CST);
    if (state->log >= 0) {
        char line[400];
        int size = snprintf(line, sizeof line, "%d %s %s\n", kind, name, path);
        syscall(SYS_write, state->log, line, size);
    }
    if (state->hits && state->killed_later && ++state->later == state->killed_later)
        die();
    if (!(kind & state->mask))
        return NOTHING;
    long number = __atomic_add_fetch(&state->counted, 1, __ATOMIC_SEQ_CST);
    if (number < state->first || number > state->last)
        return NOTHING;
    if (state->hits++ == 0) {
        strncpy(state->name, name, sizeof state->name - 1);
        strncpy(state->path, path, sizeof state->path - 1);
    }
    if (state->action == KILL_BEFORE)
        die();
    return state->action;
}

static int at_path(int kind, const char *name, const char *path)
{
    if (!state || !state->armed || !path || strncmp(path, state->root, strlen(state->root)))
        return NOTHING;
    return consult(kind, name, path);
}

static int at_handle(int kind, const char *name, int handle)
{
    if (!state || !state->armed)
        return NOTHING;
    char link[40], path[256];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    long size = syscall(SYS_readlink, link, path, sizeof path - 1);
    path[size > 0 ? size : 0] = 0;
    return at_path(kind, name, path);
}

static int at_either(int kind, const char *name, int folder, const char *path)
{
    if (folder == AT_FDCWD || (path && path[0] == '/'))
        return at_path(kind, name, path);
    return at_handle(kind, name, folder);
}

/* After the call was made: whether it is to be reported as failed. */
static int is_spoiled(int what)
{
    if (what == KILL_AFTER)
        die();
    if (what == ERROR_AFTER)
        errno = state->error;
    return what == ERROR_AFTER;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)

#define WRAP(type, name, parameters, arguments, bad, what)   \
    type name parameters                                     \
    {                                                        \
        static type(*real) parameters;                       \
        if (!real)                                           \
            real = dlsym(RTLD_NEXT, #name);                  \
        int happens = what;                                  \
        if (happens == ERROR_INSTEAD) {                      \
            errno = state->error;                            \
            return bad;                                      \
        }                                                    \
        type result = real arguments;                        \
        return happens && is_spoiled(happens) ? bad : result; \
    }

#define ASKS(name, parameters, arguments, where) \
    WRAP(int, name, parameters, arguments, -1, where)

/* -- asking -- */

ASKS(stat, (const char *p, struct stat *s), (p, s), at_path(ASK, "stat", p))
ASKS(stat64, (const char *p, struct stat64 *s), (p, s), at_path(ASK, "stat", p))
ASKS(lstat, (const char *p, struct stat *s), (p, s), at_path(ASK, "lstat", p))
ASKS(lstat64, (const char *p, struct stat64 *s), (p, s), at_path(ASK, "lstat", p))
ASKS(fstat, (int h, struct stat *s), (h, s), at_handle(ASK, "fstat", h))
ASKS(fstat64, (int h, struct stat64 *s), (h, s), at_handle(ASK, "fstat", h))
ASKS(fstatat, (int f, const char *p, struct stat *s, int o), (f, p, s, o),
     at_either(ASK, "fstatat", f, p))
ASKS(fstatat64, (int f, const char *p, struct stat64 *s, int o), (f, p, s, o),
     at_either(ASK, "fstatat", f, p))
ASKS(access, (const char *p, int m), (p, m), at_path(ASK, "access", p))
ASKS(faccessat, (int f, const char *p, int m, int o), (f, p, m, o),
     at_either(ASK, "faccessat", f, p))
ASKS(flock, (int h, int o), (h, o), at_handle(ASK, "flock", h))
WRAP(ssize_t, readlink, (const char *p, char *b, size_t n), (p, b, n), -1,
     at_path(ASK, "readlink", p))
WRAP(ssize_t, readlinkat, (int f, const char *p, char *b, size_t n), (f, p, b, n), -1,
     at_either(ASK, "readlinkat", f, p))
WRAP(ssize_t, read, (int h, void *b, size_t n), (h, b, n), -1, at_handle(ASK, "read", h))
WRAP(ssize_t, pread, (int h, void *b, size_t n, off_t o), (h, b, n, o), -1,
     at_handle(ASK, "pread", h))
WRAP(ssize_t, pread64, (int h, void *b, size_t n, off64_t o), (h, b, n, o), -1,
     at_handle(ASK, "pread", h))
WRAP(DIR *, opendir, (const char *p), (p), NULL, at_path(ASK, "opendir", p))
WRAP(DIR *, fdopendir, (int h), (h), NULL, at_handle(ASK, "fdopendir", h))
WRAP(struct dirent *, readdir, (DIR * d), (d), NULL, at_handle(ASK, "readdir", dirfd(d)))
WRAP(struct dirent64 *, readdir64, (DIR * d), (d), NULL, at_handle(ASK, "readdir", dirfd(d)))

/* -- opening: to read is to ask, to write is to change -- */

static int kind_of(int options)
{
    int writes = (options & O_ACCMODE) != O_RDONLY || (options & (O_CREAT | O_TRUNC));
    return writes ? CHANGE : ASK;
}

static int opened(int handle, int happens)
{
    if (!happens || !is_spoiled(happens))
        return handle;
    syscall(SYS_close, handle);
    errno = state->error;
    return -1;
}

#define OPENS(name, first, argument, where)                 \
    int name(first const char *path, int options, ...)      \
    {                                                       \
        static int (*real)(first const char *, int, ...);   \
        if (!real)                                          \
            real = dlsym(RTLD_NEXT, #name);                 \
        va_list more;                                       \
        va_start(more, options);                            \
        int mode = va_arg(more, int);                       \
        va_end(more);                                       \
        int happens = where;                                \
        if (happens == ERROR_INSTEAD) {                     \
            errno = state->error;                           \
            return -1;                                      \
        }                                                   \
        return opened(real(argument path, options, mode), happens); \
    }
#define COMMA ,
OPENS(open, , , at_path(kind_of(options), "open", path))
OPENS(open64, , , at_path(kind_of(options), "open", path))
OPENS(openat, int folder COMMA, folder COMMA, at_either(kind_of(options), "openat", folder, path))
OPENS(openat64, int folder COMMA, folder COMMA, at_either(kind_of(options), "openat", folder, path))

/* -- changing -- */

#define CHANGES(name, parameters, arguments, where) \
    WRAP(int, name, parameters, arguments, -1, where)

CHANGES(rename, (const char *a, const char *b), (a, b), at_path(CHANGE, "rename", a))
CHANGES(renameat, (int f, const char *a, int g, const char *b), (f, a, g, b),
        at_either(CHANGE, "renameat", f, a))
CHANGES(link, (const char *a, const char *b), (a, b), at_path(CHANGE, "link", b))
CHANGES(linkat, (int f, const char *a, int g, const char *b, int o), (f, a, g, b, o),
        at_either(CHANGE, "linkat", g, b))
CHANGES(symlink, (const char *a, const char *b), (a, b), at_path(CHANGE, "symlink", b))
CHANGES(symlinkat, (const char *a, int f, const char *b), (a, f, b),
        at_either(CHANGE, "symlinkat", f, b))
CHANGES(unlink, (const char *p), (p), at_path(CHANGE, "unlink", p))
CHANGES(unlinkat, (int f, const char *p, int o), (f, p, o), at_either(CHANGE, "unlinkat", f, p))
CHANGES(mkdir, (const char *p, mode_t m), (p, m), at_path(CHANGE, "mkdir", p))
CHANGES(mkdirat, (int f, const char *p, mode_t m), (f, p, m), at_either(CHANGE, "mkdirat", f, p))
CHANGES(rmdir, (const char *p), (p), at_path(CHANGE, "rmdir", p))
CHANGES(chmod, (const char *p, mode_t m), (p, m), at_path(CHANGE, "chmod", p))
CHANGES(fchmod, (int h, mode_t m), (h, m), at_handle(CHANGE, "fchmod", h))
CHANGES(fchmodat, (int f, const char *p, mode_t m, int o), (f, p, m, o),
        at_either(CHANGE, "fchmodat", f, p))
CHANGES(chown, (const char *p, uid_t u, gid_t g), (p, u, g), at_path(CHANGE, "chown", p))
CHANGES(fchown, (int h, uid_t u, gid_t g), (h, u, g), at_handle(CHANGE, "fchown", h))
CHANGES(utimensat, (int f, const char *p, const struct timespec t[2], int o), (f, p, t, o),
        at_either(CHANGE, "utimensat", f, p))
CHANGES(futimens, (int h, const struct timespec t[2]), (h, t), at_handle(CHANGE, "futimens", h))
CHANGES(fsync, (int h), (h), at_handle(CHANGE, "fsync", h))
CHANGES(fdatasync, (int h), (h), at_handle(CHANGE, "fdatasync", h))
CHANGES(ftruncate, (int h, off_t n), (h, n), at_handle(CHANGE, "ftruncate", h))
CHANGES(ftruncate64, (int h, off64_t n), (h, n), at_handle(CHANGE, "ftruncate", h))
WRAP(ssize_t, sendfile64, (int o, int i, off64_t *at, size_t n), (o, i, at, n), -1,
     at_handle(CHANGE, "sendfile", o))
WRAP(ssize_t, copy_file_range, (int i, off64_t *a, int o, off64_t *b, size_t n, unsigned f),
     (i, a, o, b, n, f), -1, at_handle(CHANGE, "copy_file_range", o))

/* A process that is killed while it writes has written a part. */
ssize_t write(int handle, const void *bytes, size_t size)
{
    REAL(write);
    int happens = at_handle(CHANGE, "write", handle);
    if (happens == ERROR_INSTEAD) {
        errno = state->error;
        return -1;
    }
    ssize_t result = real(handle, bytes, happens == KILL_AFTER && size > 1 ? size / 2 : size);
    return happens && is_spoiled(happens) ? -1 : result;
}

/* Network file systems tell by it that what was written could not be kept. It closes all the same;
 * handles that are only locks, which nobody writes by, close in silence. */
int close(int handle)
{
    REAL(close);
    int options = state && state->armed ? fcntl(handle, F_GETFL) : -1;
    int writes = options != -1 && ((options & O_ACCMODE) == O_WRONLY || (options & O_APPEND));
    int happens = writes ? at_handle(CHANGE, "close", handle) : NOTHING;
    int result = real(handle);
    if (happens == ERROR_INSTEAD) {
        errno = state->error;
        return -1;
    }
    return happens && is_spoiled(happens) ? -1 : result;
}
