/* A preloaded shim between a store and its disk.
 *
 * Two uses, both switched on by shim_begin() (shim.py calls it through ctypes), for files below one folder:
 *
 *   trace   notes what reached the disk for certain, so that a power loss can be played on the folder afterwards
 *           (power.py). A line a call, appended to a file outside the folder, whole lines only:
 *             C ino path          a file was created          O ino size path   a file was opened for writing
 *             W ino offset bytes  bytes were written          T ino size        a file was cut to a size
 *             B n ino             a sync began                E n ino           that sync ended well
 *             R ino from|to|kept  a rename                    U ino path|kept   a file was removed
 *             L ino path          a hard link was made        M ino path        a folder was made
 *             F op k path         the fault was injected
 *           W, T and the names' lines are written after the call, so that what a line tells has happened; a sync
 *           covers the lines before its B. Files that are replaced or removed keep a second name in a folder
 *           beside, for a power loss may bring them back.
 *   fault   the k-th call of one kind fails with a chosen errno; a failing write may leave half its bytes.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { kFiles = 1 << 16 };
enum { kOpen, kWrite, kSync, kRename, kUnlink, kTruncate, kOps };
static const char* const kNames[kOps] = {"open", "write", "fsync", "rename", "unlink", "truncate"};

static char root_[PATH_MAX], keep_[PATH_MAX];
static size_t root_length_;
static atomic_int active_;
static int trace_ = -1;
static atomic_long ino_[kFiles]; /* by descriptor; 0 where it is not ours */
static atomic_char appending_[kFiles];
static atomic_long counter_, syncs_, calls_[kOps];
static int fail_op_ = -1, fail_errno_, fail_half_, fail_ever_;
static long fail_at_;
static _Thread_local int inside_;

#define NEXT(type, name)        \
  static __typeof__(type) next; \
  if (next == NULL) next = (__typeof__(type))dlsym(RTLD_NEXT, name)

static ssize_t raw_write(int fd, const void* data, size_t size) {
  NEXT(ssize_t(*)(int, const void*, size_t), "write");
  return next(fd, data, size);
}

static void note(const char* format, ...) {
  if (trace_ < 0) return;
  int saved = errno;
  char line[3 * PATH_MAX];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  if (length > 0 && raw_write(trace_, line, (size_t)length) != length) abort();
  errno = saved;
}

static int below(const char* path) {
  return active_ && !inside_ && path != NULL && strncmp(path, root_, root_length_) == 0 &&
         (path[root_length_] == '/' || path[root_length_] == 0);
}

static long ours(int fd) { return active_ && !inside_ && fd >= 0 && fd < kFiles ? ino_[fd] : 0; }

/* Whether this call of a kind is the one to fail. path NULL: that of fd. */
static int fails(int op, int fd, const char* path) {
  if (op != fail_op_) return 0;
  long k = ++calls_[op];
  if (k != fail_at_ && !(fail_ever_ && k > fail_at_)) return 0;
  if (k == fail_at_) {
    char name[64], target[PATH_MAX] = "";
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    if (path == NULL && readlink(name, target, sizeof target - 1) > 0) path = target;
    note("F %s %ld %s\n", kNames[op], k, path == NULL ? "" : path);
  }
  errno = fail_errno_;
  return 1;
}

/* 0, or why it cannot begin. trace, keep, op may be NULL. flags: 1 a failing write leaves half its bytes, 2 every
 * later call of that kind fails too. */
int shim_begin(const char* root, const char* trace, const char* keep, const char* op, long k, int number, int flags) {
  if (strlen(root) >= sizeof root_ || (keep != NULL && strlen(keep) >= sizeof keep_)) return ENAMETOOLONG;
  strcpy(root_, root);
  root_length_ = strlen(root);
  strcpy(keep_, keep == NULL ? "" : keep);
  fail_op_ = -1;
  for (int i = 0; op != NULL && i < kOps; ++i) {
    if (strcmp(op, kNames[i]) == 0) fail_op_ = i;
    calls_[i] = 0;
  }
  if (op != NULL && fail_op_ < 0) return EINVAL;
  fail_at_ = k;
  fail_errno_ = number;
  fail_half_ = flags & 1;
  fail_ever_ = flags >> 1 & 1;
  trace_ = trace == NULL ? -1 : open(trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (trace != NULL && trace_ < 0) return errno;
  active_ = 1;
  return 0;
}

void shim_end(void) { active_ = 0; }

/* A second name for what stands at `path`, so that it can come back. */
static const char* keep(const char* path, char* name) {
  name[0] = 0;
  if (keep_[0] == 0) return name;
  snprintf(name, PATH_MAX, "%.*s/%ld", PATH_MAX - 32, keep_, ++counter_);
  inside_ = 1;
  int saved = errno;
  if (link(path, name) != 0) name[0] = 0;
  errno = saved;
  inside_ = 0;
  return name;
}

static long ino_of(const char* path) {
  struct stat found;
  return lstat(path, &found) == 0 ? (long)found.st_ino : 0;
}

/* ------------------------------------------------------------------------------------------- files */

static int opened(int fd, const char* path, int flags, int existed) {
  struct stat found;
  if (fd < 0 || fd >= kFiles || fstat(fd, &found) != 0) return fd;
  ino_[fd] = (long)found.st_ino;
  appending_[fd] = (flags & O_APPEND) != 0;
  if (!existed) note("C %ld %s\n", (long)found.st_ino, path);
  if ((flags & O_ACCMODE) != O_RDONLY) {
    if (existed && flags & O_TRUNC) note("T %ld 0\n", (long)found.st_ino);
    note("O %ld %ld %s\n", (long)found.st_ino, (long)found.st_size, path);
  }
  return fd;
}

static int open_any(int at, const char* path, int flags, mode_t mode) {
  NEXT(int (*)(int, const char*, int, ...), "openat");
  if (!below(path)) return next(at, path, flags, mode);
  if (fails(kOpen, -1, path)) return -1;
  int existed = !(flags & O_CREAT) || ino_of(path) != 0;
  return opened(next(at, path, flags, mode), path, flags, existed);
}

#define MODE()                                 \
  mode_t mode = 0;                             \
  if (flags & (O_CREAT | __O_TMPFILE)) {       \
    va_list arguments;                         \
    va_start(arguments, flags);                \
    mode = (mode_t)va_arg(arguments, unsigned); \
    va_end(arguments);                         \
  }

int open(const char* path, int flags, ...) {
  MODE();
  return open_any(AT_FDCWD, path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  MODE();
  return open_any(AT_FDCWD, path, flags, mode);
}
int openat(int at, const char* path, int flags, ...) {
  MODE();
  return open_any(at, path, flags, mode);
}
int openat64(int at, const char* path, int flags, ...) {
  MODE();
  return open_any(at, path, flags, mode);
}

static FILE* open_stream(const char* name, const char* path, const char* mode) {
  FILE* (*next)(const char*, const char*) = (FILE * (*)(const char*, const char*)) dlsym(RTLD_NEXT, name);
  if (!below(path)) return next(path, mode);
  if (fails(kOpen, -1, path)) return NULL;
  int existed = ino_of(path) != 0;
  int flags = mode[0] == 'r' && strchr(mode, '+') == NULL ? O_RDONLY : O_WRONLY;
  if (mode[0] == 'w') flags |= O_TRUNC;
  if (mode[0] == 'a') flags |= O_APPEND;
  FILE* stream = next(path, mode);
  if (stream != NULL) opened(fileno(stream), path, flags, existed);
  return stream;
}
FILE* fopen(const char* path, const char* mode) { return open_stream("fopen", path, mode); }
FILE* fopen64(const char* path, const char* mode) { return open_stream("fopen64", path, mode); }
DIR* opendir(const char* path) {
  NEXT(DIR * (*)(const char*), "opendir");
  return below(path) && fails(kOpen, -1, path) ? NULL : next(path);
}

int close(int fd) {
  NEXT(int (*)(int), "close");
  if (fd >= 0 && fd < kFiles) ino_[fd] = 0;
  return next(fd);
}

/* ------------------------------------------------------------------------------------------ writes */

static long place(int fd) {
  struct stat found;
  if (appending_[fd]) return fstat(fd, &found) == 0 ? (long)found.st_size : 0;
  return (long)lseek(fd, 0, SEEK_CUR);
}

static void wrote(long ino, long offset, ssize_t bytes) {
  if (bytes > 0) note("W %ld %ld %zd\n", ino, offset, bytes);
}

ssize_t write(int fd, const void* data, size_t size) {
  long ino = ours(fd);
  if (ino == 0) return raw_write(fd, data, size);
  long offset = place(fd);
  if (fails(kWrite, fd, NULL)) {
    int number = errno;
    if (fail_half_ && size > 1) wrote(ino, offset, raw_write(fd, data, size / 2));
    errno = number;
    return -1;
  }
  ssize_t done = raw_write(fd, data, size);
  wrote(ino, offset, done);
  return done;
}

static ssize_t pwrite_any(int fd, const void* data, size_t size, off_t offset) {
  NEXT(ssize_t(*)(int, const void*, size_t, off_t), "pwrite");
  long ino = ours(fd);
  if (ino == 0) return next(fd, data, size, offset);
  if (fails(kWrite, fd, NULL)) {
    int number = errno;
    if (fail_half_ && size > 1) wrote(ino, (long)offset, next(fd, data, size / 2, offset));
    errno = number;
    return -1;
  }
  ssize_t done = next(fd, data, size, offset);
  wrote(ino, (long)offset, done);
  return done;
}
ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) { return pwrite_any(fd, data, size, offset); }
ssize_t pwrite64(int fd, const void* data, size_t size, off64_t offset) { return pwrite_any(fd, data, size, offset); }

ssize_t writev(int fd, const struct iovec* parts, int count) {
  NEXT(ssize_t(*)(int, const struct iovec*, int), "writev");
  long ino = ours(fd);
  if (ino == 0) return next(fd, parts, count);
  if (fails(kWrite, fd, NULL)) return -1;
  long offset = place(fd);
  ssize_t done = next(fd, parts, count);
  wrote(ino, offset, done);
  return done;
}

static ssize_t pwritev_any(int fd, const struct iovec* parts, int count, off_t offset) {
  NEXT(ssize_t(*)(int, const struct iovec*, int, off_t), "pwritev");
  long ino = ours(fd);
  if (ino == 0) return next(fd, parts, count, offset);
  if (fails(kWrite, fd, NULL)) return -1;
  ssize_t done = next(fd, parts, count, offset);
  wrote(ino, (long)offset, done);
  return done;
}
ssize_t pwritev(int fd, const struct iovec* parts, int count, off_t offset) {
  return pwritev_any(fd, parts, count, offset);
}
ssize_t pwritev64(int fd, const struct iovec* parts, int count, off64_t offset) {
  return pwritev_any(fd, parts, count, offset);
}

/* Copies inside the kernel: refused, so that callers fall back to plain writes. */
ssize_t copy_file_range(int in, off64_t* from, int out, off64_t* to, size_t size, unsigned flags) {
  NEXT(ssize_t(*)(int, off64_t*, int, off64_t*, size_t, unsigned), "copy_file_range");
  if (ours(out) == 0) return next(in, from, out, to, size, flags);
  errno = EXDEV;
  return -1;
}
static ssize_t sendfile_any(int out, int in, off_t* from, size_t size) {
  NEXT(ssize_t(*)(int, int, off_t*, size_t), "sendfile");
  if (ours(out) == 0) return next(out, in, from, size);
  errno = ENOTSOCK;
  return -1;
}
ssize_t sendfile(int out, int in, off_t* from, size_t size) { return sendfile_any(out, in, from, size); }
ssize_t sendfile64(int out, int in, off64_t* from, size_t size) { return sendfile_any(out, in, from, size); }

static int truncate_any(int fd, off_t size) {
  NEXT(int (*)(int, off_t), "ftruncate");
  long ino = ours(fd);
  if (ino == 0) return next(fd, size);
  if (fails(kTruncate, fd, NULL)) return -1;
  int done = next(fd, size);
  if (done == 0) note("T %ld %ld\n", ino, (long)size);
  return done;
}
int ftruncate(int fd, off_t size) { return truncate_any(fd, size); }
int ftruncate64(int fd, off64_t size) { return truncate_any(fd, size); }

/* ------------------------------------------------------------------------------------------- syncs */

static int sync_any(int fd, int (*next)(int)) {
  long ino = ours(fd);
  if (ino == 0) return next(fd);
  if (fails(kSync, fd, NULL)) return -1;
  long number = ++syncs_;
  note("B %ld %ld\n", number, ino);
  int done = next(fd);
  if (done == 0) note("E %ld %ld\n", number, ino);
  return done;
}
int fsync(int fd) {
  NEXT(int (*)(int), "fsync");
  return sync_any(fd, next);
}
int fdatasync(int fd) {
  NEXT(int (*)(int), "fdatasync");
  return sync_any(fd, next);
}

/* ------------------------------------------------------------------------------------------- names */

int rename(const char* from, const char* to) {
  NEXT(int (*)(const char*, const char*), "rename");
  if (!below(from) && !below(to)) return next(from, to);
  if (fails(kRename, -1, from)) return -1;
  char kept[PATH_MAX];
  keep(to, kept);
  int done = next(from, to);
  if (done == 0) note("R %ld %s|%s|%s\n", ino_of(to), from, to, kept);
  return done;
}
int renameat(int at, const char* from, int at_to, const char* to) {
  NEXT(int (*)(int, const char*, int, const char*), "renameat");
  return below(from) || below(to) ? rename(from, to) : next(at, from, at_to, to);
}

static int unlink_any(const char* path, int at, int flags) {
  NEXT(int (*)(int, const char*, int), "unlinkat");
  if (!below(path) || flags != 0) return next(at, path, flags);
  if (fails(kUnlink, -1, path)) return -1;
  char kept[PATH_MAX];
  long ino = ino_of(path);
  keep(path, kept);
  int done = next(at, path, flags);
  if (done == 0) note("U %ld %s|%s\n", ino, path, kept);
  return done;
}
int unlink(const char* path) { return unlink_any(path, AT_FDCWD, 0); }
int unlinkat(int at, const char* path, int flags) { return unlink_any(path, at, flags); }

int link(const char* from, const char* to) {
  NEXT(int (*)(const char*, const char*), "link");
  int done = next(from, to);
  if (done == 0 && below(to)) note("L %ld %s\n", ino_of(to), to);
  return done;
}
int linkat(int at, const char* from, int at_to, const char* to, int flags) {
  NEXT(int (*)(int, const char*, int, const char*, int), "linkat");
  int done = next(at, from, at_to, to, flags);
  if (done == 0 && below(to)) note("L %ld %s\n", ino_of(to), to);
  return done;
}

int mkdir(const char* path, mode_t mode) {
  NEXT(int (*)(const char*, mode_t), "mkdir");
  int done = next(path, mode);
  if (done == 0 && below(path)) note("M %ld %s\n", ino_of(path), path);
  return done;
}
