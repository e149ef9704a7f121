/* Preloaded into a process, counts its file operations below given folders, and lets the Nth of them go wrong.
 *
 * Descriptors that were opened below the folders are followed. Nothing is counted before fault_arm. The kinds of operation are
 * bits, so that a mask says which ones count. At the Nth: FAIL refuses it, FAIL_ON it and all that follow, with the errno `wrong`;
 * SHORT_WRITE does half of a write and refuses what follows; BEFORE and AFTER send this process the signal `wrong` (SIGKILL ends
 * it there, SIGSTOP lets others go first, SIGINT is Ctrl-C).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { OPEN = 1, CREATE = 2, READ = 4, WRITE = 8, SYNC = 16, RENAME = 32, UNLINK = 64, MKDIR = 128, LINK = 256,
            TRUNCATE = 512, LISTING = 1024, LOCK = 2048, STAT = 4096, CLOSE = 8192, ALL = 16383 };
enum action { COUNT, FAIL, FAIL_ON, SHORT_WRITE, BEFORE, AFTER };
enum verdict { GO_ON, REFUSE, SHORTEN, SIGNAL_THEN };

#define MOST 65536
static char folders[8][PATH_MAX];
static int folder_count, mask, action, wrong;
static long nth, count;
static unsigned short seen[MOST]; /* the kinds of what was counted, in order */
static unsigned char ours[MOST];

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static int below(int dir, const char *path) {
    char whole[2 * PATH_MAX];
    if (!folder_count || !path) return 0;
    if (path[0] != '/') {
        if (dir != AT_FDCWD) return dir >= 0 && dir < MOST && ours[dir];
        if (!getcwd(whole, PATH_MAX)) return 0;
        strcat(whole, "/");
        strncat(whole, path, PATH_MAX - 1);
        path = whole;
    }
    for (int i = 0; i < folder_count; i++) {
        size_t n = strlen(folders[i]);
        if (!strncmp(path, folders[i], n) && (path[n] == '/' || !path[n])) return 1;
    }
    return 0;
}

/* Where the process may write at all: below FAULT_CONFINE, whatever links say, so that a test that goes astray does no harm. */
static char walls[PATH_MAX];

__attribute__((constructor)) static void confine(void) {
    const char *folder = getenv("FAULT_CONFINE");
    if (folder && !realpath(folder, walls)) walls[0] = 0;
}

static int beyond(int dir, const char *path, int through) {
    static const char *devices[] = {"/dev/null", "/dev/full", "/dev/tty"};
    char whole[2 * PATH_MAX], real[PATH_MAX];
    struct stat status;
    if (!walls[0] || !path) return 0;
    int kept = errno, outside = 1;
    if (path[0] != '/' && dir != AT_FDCWD) {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        ssize_t n = readlink(link, whole, PATH_MAX - 1);
        snprintf(whole + (n < 0 ? 0 : n), PATH_MAX, "/%s", path);
    } else snprintf(whole, sizeof whole, "%s", path);
    int is_link = !lstat(whole, &status) && S_ISLNK(status.st_mode);
    if (!through || !realpath(whole, real)) {
        char *slash = strrchr(whole, '/');
        if (slash) *(slash == whole ? slash + 1 : slash) = 0; else strcpy(whole, ".");
        if ((through && is_link) || !realpath(whole, real)) { errno = kept; return through && is_link; }
    }
    size_t n = strlen(walls);
    if (!strncmp(real, walls, n) && (real[n] == '/' || !real[n])) outside = 0;
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) if (through && !strcmp(real, devices[i])) outside = 0;
    errno = kept;
    return outside;
}

static int follow(int fd, int mine) {
    if (fd >= 0 && fd < MOST) ours[fd] = (unsigned char)mine;
    return fd;
}

static int followed(int fd) { return fd >= 0 && fd < MOST && ours[fd]; }

/* What is to be done with this operation; errno is set where it is refused. */
static enum verdict meet(int kind) {
    if (!(kind & mask)) return GO_ON;
    long now = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
    if (now <= MOST) seen[now - 1] = (unsigned short)kind;
    if (now < nth || (now > nth && action != FAIL_ON && action != SHORT_WRITE)) return GO_ON;
    switch (action) {
        case BEFORE: kill(getpid(), wrong); return GO_ON;
        case AFTER: return SIGNAL_THEN;
        case SHORT_WRITE: if (now == nth && kind == WRITE) return SHORTEN; /* else as */ __attribute__((fallthrough));
        case FAIL: case FAIL_ON: errno = wrong; return REFUSE;
        default: return GO_ON;
    }
}

static void afterwards(enum verdict verdict) {
    int kept = errno;
    if (verdict == SIGNAL_THEN) kill(getpid(), wrong);
    errno = kept;
}

/* The interface, for ctypes. `below_these`: folders with a newline between. */
void fault_arm(const char *below_these, long at, int what, int errno_or_signal, int kinds) {
    folder_count = 0;
    while (*below_these && folder_count < 8) {
        size_t n = strcspn(below_these, "\n");
        snprintf(folders[folder_count++], PATH_MAX, "%.*s", (int)n, below_these);
        below_these += n + (below_these[n] == '\n');
    }
    nth = at; action = what; wrong = errno_or_signal; mask = kinds; count = 0;
    memset(ours, 0, sizeof ours);
}
void fault_disarm(void) { folder_count = 0; mask = 0; }
long fault_count(void) { return count; }
const unsigned short *fault_seen(void) { return seen; }

/* An operation that is counted where `condition` holds, gives `failed` where it is refused. */
#define MEET(kind, condition, failed, call)            \
    if (!(condition)) return call;                           \
    enum verdict verdict = meet(kind);                 \
    if (verdict == REFUSE) return failed;                    \
    __typeof__(call) result = call;                          \
    afterwards(verdict);                                     \
    return result

#define STAY(dir, path, through) if (beyond(dir, path, through)) { errno = EACCES; return -1; }

static int creates(int flags) { return (flags & O_CREAT) || (flags & O_ACCMODE) != O_RDONLY; }

#define OPENS(name)                                                                         \
    int name(const char *path, int flags, ...) {                                            \
        REAL(name);                                                                         \
        mode_t mode = 0;                                                                    \
        if (flags & (O_CREAT | O_TMPFILE)) { va_list a; va_start(a, flags); mode = va_arg(a, mode_t); va_end(a); } \
        if (creates(flags) && beyond(AT_FDCWD, path, 1)) { errno = EACCES; return -1; }     \
        int mine = below(AT_FDCWD, path);                                                   \
        MEET(creates(flags) ? CREATE : OPEN, mine, -1, follow(real(path, flags, mode), mine)); \
    }
#define OPENS_AT(name)                                                                      \
    int name(int dir, const char *path, int flags, ...) {                                   \
        REAL(name);                                                                         \
        mode_t mode = 0;                                                                    \
        if (flags & (O_CREAT | O_TMPFILE)) { va_list a; va_start(a, flags); mode = va_arg(a, mode_t); va_end(a); } \
        if (creates(flags) && beyond(dir, path, 1)) { errno = EACCES; return -1; }          \
        int mine = below(dir, path);                                                        \
        MEET(creates(flags) ? CREATE : OPEN, mine, -1, follow(real(dir, path, flags, mode), mine)); \
    }
OPENS(open)
OPENS(open64)
OPENS_AT(openat)
OPENS_AT(openat64)
int creat(const char *path, mode_t mode) {
    REAL(creat);
    STAY(AT_FDCWD, path, 1);
    int mine = below(AT_FDCWD, path);
    MEET(CREATE, mine, -1, follow(real(path, mode), mine));
}
#define FOPENS(name)                                                                        \
    FILE *name(const char *path, const char *mode) {                                        \
        REAL(name);                                                                         \
        if ((mode[0] != 'r' || strchr(mode, '+')) && beyond(AT_FDCWD, path, 1)) { errno = EACCES; return NULL; } \
        if (!below(AT_FDCWD, path)) return real(path, mode);                                \
        enum verdict verdict = meet(mode[0] == 'r' && !strchr(mode, '+') ? OPEN : CREATE); \
        if (verdict == REFUSE) return NULL;                                                 \
        FILE *file = real(path, mode);                                                      \
        if (file) follow(fileno(file), 1);                                                  \
        afterwards(verdict);                                                                \
        return file;                                                                        \
    }
FOPENS(fopen)
FOPENS(fopen64)
DIR *opendir(const char *path) { REAL(opendir); MEET(LISTING, below(AT_FDCWD, path), NULL, real(path)); }
DIR *fdopendir(int fd) { REAL(fdopendir); MEET(LISTING, followed(fd), NULL, real(fd)); }

ssize_t read(int fd, void *to, size_t n) { REAL(read); MEET(READ, followed(fd), -1, real(fd, to, n)); }
ssize_t pread(int fd, void *to, size_t n, off_t at) {
    REAL(pread);
    MEET(READ, followed(fd), -1, real(fd, to, n, at));
}
ssize_t pread64(int fd, void *to, size_t n, off64_t at) {
    REAL(pread64);
    MEET(READ, followed(fd), -1, real(fd, to, n, at));
}

/* A write that is cut: half of it is done, and what follows fails. */
#define WRITES(condition, n, part, whole)                                             \
    if (!(condition)) return whole;                                                         \
    enum verdict verdict = meet(WRITE);                                               \
    if (verdict == REFUSE) return -1;                                                       \
    if (verdict == SHORTEN && (n) > 1) return part;                                         \
    ssize_t result = whole;                                                                 \
    afterwards(verdict);                                                                    \
    return result
ssize_t write(int fd, const void *from, size_t n) {
    REAL(write);
    WRITES(followed(fd), n, real(fd, from, n / 2), real(fd, from, n));
}
ssize_t pwrite(int fd, const void *from, size_t n, off_t at) {
    REAL(pwrite);
    WRITES(followed(fd), n, real(fd, from, n / 2, at), real(fd, from, n, at));
}
ssize_t pwrite64(int fd, const void *from, size_t n, off64_t at) {
    REAL(pwrite64);
    WRITES(followed(fd), n, real(fd, from, n / 2, at), real(fd, from, n, at));
}
ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(writev);
    WRITES(followed(fd), n, real(fd, parts, n / 2), real(fd, parts, n));
}

int fsync(int fd) { REAL(fsync); MEET(SYNC, followed(fd), -1, real(fd)); }
int fdatasync(int fd) { REAL(fdatasync); MEET(SYNC, followed(fd), -1, real(fd)); }
int ftruncate(int fd, off_t n) { REAL(ftruncate); MEET(TRUNCATE, followed(fd), -1, real(fd, n)); }
int ftruncate64(int fd, off64_t n) { REAL(ftruncate64); MEET(TRUNCATE, followed(fd), -1, real(fd, n)); }
int truncate(const char *path, off_t n) {
    REAL(truncate); STAY(AT_FDCWD, path, 1);
    MEET(TRUNCATE, below(AT_FDCWD, path), -1, real(path, n));
}
int flock(int fd, int how) { REAL(flock); MEET(LOCK, followed(fd), -1, real(fd, how)); }
int close(int fd) {
    REAL(close);
    if (!followed(fd)) return real(fd);
    enum verdict verdict = meet(CLOSE);
    ours[fd] = 0;
    int result = real(fd); /* a close that fails has closed all the same */
    if (verdict == REFUSE) { errno = wrong; return -1; }
    afterwards(verdict);
    return result;
}

int rename(const char *a, const char *b) {
    REAL(rename); STAY(AT_FDCWD, a, 0); STAY(AT_FDCWD, b, 0);
    MEET(RENAME, below(AT_FDCWD, a) || below(AT_FDCWD, b), -1, real(a, b));
}
int renameat(int c, const char *a, int d, const char *b) {
    REAL(renameat); STAY(c, a, 0); STAY(d, b, 0);
    MEET(RENAME, below(c, a) || below(d, b), -1, real(c, a, d, b));
}
int renameat2(int c, const char *a, int d, const char *b, unsigned how) {
    REAL(renameat2); STAY(c, a, 0); STAY(d, b, 0);
    MEET(RENAME, below(c, a) || below(d, b), -1, real(c, a, d, b, how));
}
int link(const char *a, const char *b) { REAL(link); STAY(AT_FDCWD, b, 0); MEET(LINK, below(AT_FDCWD, b), -1, real(a, b)); }
int linkat(int c, const char *a, int d, const char *b, int how) {
    REAL(linkat); STAY(d, b, 0);
    MEET(LINK, below(d, b), -1, real(c, a, d, b, how));
}
int symlink(const char *a, const char *b) { REAL(symlink); STAY(AT_FDCWD, b, 0); MEET(LINK, below(AT_FDCWD, b), -1, real(a, b)); }
int unlink(const char *path) { REAL(unlink); STAY(AT_FDCWD, path, 0); MEET(UNLINK, below(AT_FDCWD, path), -1, real(path)); }
int unlinkat(int dir, const char *path, int how) {
    REAL(unlinkat); STAY(dir, path, 0);
    MEET(UNLINK, below(dir, path), -1, real(dir, path, how));
}
int rmdir(const char *path) { REAL(rmdir); STAY(AT_FDCWD, path, 0); MEET(UNLINK, below(AT_FDCWD, path), -1, real(path)); }
int mkdir(const char *path, mode_t mode) {
    REAL(mkdir); STAY(AT_FDCWD, path, 0);
    MEET(MKDIR, below(AT_FDCWD, path), -1, real(path, mode));
}
int mkdirat(int dir, const char *path, mode_t mode) {
    REAL(mkdirat); STAY(dir, path, 0);
    MEET(MKDIR, below(dir, path), -1, real(dir, path, mode));
}

#define STATS(name, of)                                                                     \
    int name(const char *path, struct of *to) {                                             \
        REAL(name);                                                                         \
        MEET(STAT, below(AT_FDCWD, path), -1, real(path, to));                       \
    }
STATS(stat, stat)
STATS(stat64, stat64)
STATS(lstat, stat)
STATS(lstat64, stat64)
#define STATS_AT(name, of)                                                                  \
    int name(int dir, const char *path, struct of *to, int how) {                           \
        REAL(name);                                                                         \
        MEET(STAT, below(dir, path), -1, real(dir, path, to, how));                  \
    }
STATS_AT(fstatat, stat)
STATS_AT(fstatat64, stat64)
