// Counts the changes that a process makes to the files of a folder, and kills it just before the n-th: preloaded
// (LD_PRELOAD), told what to do by kill_at_event, which a forked child calls. Events are openings for writing, renames,
// links, removals, new folders and flushes; others pass uncounted.

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

namespace {

char folder[PATH_MAX];
std::atomic<long> counted{0};
long last = -1;
int log_file = -1;

template <typename Function>
Function real(const char *name) {
    return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

bool descriptor_path(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return false;
    path[length] = 0;
    return true;
}

void event(const char *kind, int descriptor, const char *name) {
    if (!folder[0]) return;
    char path[2 * PATH_MAX];
    if (name && name[0] == '/') {
        snprintf(path, sizeof path, "%s", name);
    } else {
        char above[PATH_MAX];
        if (descriptor == AT_FDCWD ? !getcwd(above, sizeof above) : !descriptor_path(descriptor, above)) return;
        snprintf(path, sizeof path, name ? "%s/%s" : "%s", above, name);
    }
    size_t length = strlen(folder);
    if (strncmp(path, folder, length) != 0 || (path[length] != '/' && path[length] != 0)) return;
    long number = ++counted;
    if (log_file >= 0) dprintf(log_file, "%ld %s %s\n", number, kind, path + length);
    if (number == last) syscall(SYS_kill, getpid(), SIGKILL);
}

bool writes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC); }

}  // namespace

extern "C" {

// The changes below `path` are counted from now on; before the `number`-th the process is killed, at none where it is
// negative. They are written to `log`, where that is not empty.
void kill_at_event(const char *path, long number, const char *log) {
    log_file = log[0] ? open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666) : -1;
    counted = 0;
    last = number;
    snprintf(folder, sizeof folder, "%s", path);
}

#define MODE_OF(flags)                        \
    mode_t mode = 0;                          \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {  \
        va_list rest;                         \
        va_start(rest, flags);                \
        mode = va_arg(rest, mode_t);          \
        va_end(rest);                         \
    }

#define OPEN(NAME)                                                                          \
    int NAME(const char *path, int flags, ...) {                                            \
        MODE_OF(flags)                                                                      \
        if (writes(flags)) event("open", AT_FDCWD, path);                                   \
        static auto next = real<int (*)(const char *, int, ...)>(#NAME);                    \
        return next(path, flags, mode);                                                     \
    }
#define OPENAT(NAME)                                                                        \
    int NAME(int descriptor, const char *path, int flags, ...) {                            \
        MODE_OF(flags)                                                                      \
        if (writes(flags)) event("open", descriptor, path);                                 \
        static auto next = real<int (*)(int, const char *, int, ...)>(#NAME);               \
        return next(descriptor, path, flags, mode);                                         \
    }
#define FOPEN(NAME)                                                                         \
    FILE *NAME(const char *path, const char *how) {                                         \
        if (strpbrk(how, "wa+")) event("open", AT_FDCWD, path);                             \
        static auto next = real<FILE *(*)(const char *, const char *)>(#NAME);              \
        return next(path, how);                                                             \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
FOPEN(fopen)
FOPEN(fopen64)

int rename(const char *from, const char *to) noexcept {
    event("rename", AT_FDCWD, to);
    static auto next = real<int (*)(const char *, const char *)>("rename");
    return next(from, to);
}
int renameat(int here, const char *from, int there, const char *to) noexcept {
    event("rename", there, to);
    static auto next = real<int (*)(int, const char *, int, const char *)>("renameat");
    return next(here, from, there, to);
}
int link(const char *from, const char *to) noexcept {
    event("link", AT_FDCWD, to);
    static auto next = real<int (*)(const char *, const char *)>("link");
    return next(from, to);
}
int linkat(int here, const char *from, int there, const char *to, int flags) noexcept {
    event("link", there, to);
    static auto next = real<int (*)(int, const char *, int, const char *, int)>("linkat");
    return next(here, from, there, to, flags);
}
int unlink(const char *path) noexcept {
    event("unlink", AT_FDCWD, path);
    static auto next = real<int (*)(const char *)>("unlink");
    return next(path);
}
int unlinkat(int descriptor, const char *path, int flags) noexcept {
    event("unlink", descriptor, path);
    static auto next = real<int (*)(int, const char *, int)>("unlinkat");
    return next(descriptor, path, flags);
}
int rmdir(const char *path) noexcept {
    event("rmdir", AT_FDCWD, path);
    static auto next = real<int (*)(const char *)>("rmdir");
    return next(path);
}
int mkdir(const char *path, mode_t mode) noexcept {
    event("mkdir", AT_FDCWD, path);
    static auto next = real<int (*)(const char *, mode_t)>("mkdir");
    return next(path, mode);
}
int mkdirat(int descriptor, const char *path, mode_t mode) noexcept {
    event("mkdir", descriptor, path);
    static auto next = real<int (*)(int, const char *, mode_t)>("mkdirat");
    return next(descriptor, path, mode);
}
int ftruncate64(int descriptor, off64_t length) noexcept {
    event("truncate", descriptor, nullptr);
    static auto next = real<int (*)(int, off64_t)>("ftruncate64");
    return next(descriptor, length);
}
int fsync(int descriptor) {
    event("fsync", descriptor, nullptr);
    static auto next = real<int (*)(int)>("fsync");
    return next(descriptor);
}
int fdatasync(int descriptor) {
    event("fsync", descriptor, nullptr);
    static auto next = real<int (*)(int)>("fdatasync");
    return next(descriptor);
}
}
