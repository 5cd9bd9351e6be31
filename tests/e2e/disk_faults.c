/* Preloaded into a server: makes writes and syncs of its database files fail while a control file says so.
 *
 * DISK_FAULTS names the control file. Its content: "full" (no space for writes), "sync" (an I/O error of fsync and fdatasync),
 * "write" (an I/O error of writes), "readonly". An empty or missing file: nothing fails. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int is_database(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  return strstr(path, ".sqlite3") != NULL && strstr(path, ".sqlite3.lock") == NULL;
}

static int fault(int fd, int sync) {
  const char *control = getenv("DISK_FAULTS");
  if (control == NULL || access(control, R_OK) != 0 || !is_database(fd)) return 0;
  char mode[16] = {0};
  int file = open(control, O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  ssize_t length = read(file, mode, sizeof mode - 1);
  close(file);
  if (length <= 0) return 0;
  if (sync) return strcmp(mode, "sync") == 0 ? EIO : 0;
  if (strcmp(mode, "full") == 0) return ENOSPC;
  if (strcmp(mode, "write") == 0) return EIO;
  if (strcmp(mode, "readonly") == 0) return EROFS;
  return 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL_IF(sync) \
  do { \
    int error = fault(fd, sync); \
    if (error) { errno = error; return -1; } \
  } while (0)

ssize_t pwrite(int fd, const void *data, size_t count, off_t offset) { FAIL_IF(0); return REAL(pwrite)(fd, data, count, offset); }
ssize_t pwrite64(int fd, const void *data, size_t count, off64_t offset) { FAIL_IF(0); return REAL(pwrite64)(fd, data, count, offset); }
ssize_t write(int fd, const void *data, size_t count) { FAIL_IF(0); return REAL(write)(fd, data, count); }
int ftruncate(int fd, off_t length) { FAIL_IF(0); return REAL(ftruncate)(fd, length); }
int ftruncate64(int fd, off64_t length) { FAIL_IF(0); return REAL(ftruncate64)(fd, length); }
int fsync(int fd) { FAIL_IF(1); return REAL(fsync)(fd); }
int fdatasync(int fd) { FAIL_IF(1); return REAL(fdatasync)(fd); }
