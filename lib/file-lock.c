/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include <glib.h>

#include "block-device.h"
#include "file-lock.h"

/* The bytes on which qemu takes shared locks for what it does, and for
 * what it does not want others to do, and looks for the locks of others.
 */
enum {
  QEMU_READS = 100,
  QEMU_WRITES = 101,
  QEMU_RESIZES = 103,
  QEMU_UNSHARES_READS = 200,
  QEMU_UNSHARES_WRITES = 201,
  QEMU_UNSHARES_RESIZES = 203,
};

static int
lock_byte (int fd, int cmd, short type, off_t byte)
{
  struct flock lock = {
    .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1,
  };

  if (fcntl (fd, cmd, &lock) == -1)
    return -1;
  if (cmd == F_OFD_GETLK && lock.l_type != F_UNLCK) {
    errno = EAGAIN;
    return -1;
  }
  return 0;
}

/* Like a reader in qemu, which lets other readers in.  CMD is F_OFD_SETLK, or
 * F_OFD_GETLK to find out if that could be.
 */
static int
lock_to_read (int fd, int cmd)
{
  static const off_t taken[] = {
    QEMU_READS, QEMU_UNSHARES_WRITES, QEMU_UNSHARES_RESIZES,
  };
  static const off_t free[] = {
    QEMU_WRITES, QEMU_RESIZES, QEMU_UNSHARES_READS,
  };
  size_t i;

  for (i = 0; i < G_N_ELEMENTS (taken); i++)
    if (lock_byte (fd, cmd, F_RDLCK, taken[i]) == -1)
      return -1;
  for (i = 0; i < G_N_ELEMENTS (free); i++)
    if (lock_byte (fd, F_OFD_GETLK, F_WRLCK, free[i]) == -1)
      return -1;
  return 0;
}

/* A lock over the whole file meets everybody else's. */
static int
lock_to_write (int fd)
{
  struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

  return fcntl (fd, F_OFD_SETLK, &lock);
}

int
file_lock (int fd, const char *path, bool read_only, char **error)
{
  if ((read_only ? lock_to_read (fd, F_OFD_SETLK) : lock_to_write (fd)) == 0)
    return 0;
  if (errno == EAGAIN || errno == EACCES)
    bdev_open_failed (EBUSY, error, "%s: is locked: another server serves it "
                      "or a program such as qemu has it open; stop that one "
                      "first", path);
  else
    bdev_open_failed (errno, error, "%s: cannot be locked: %s; use a file "
                      "system with locks", path, strerror (errno));
  return -1;
}

bool
file_is_written (int fd)
{
  return lock_to_read (fd, F_OFD_GETLK) == -1 && errno == EAGAIN;
}

void
file_unlock (int fd)
{
  struct flock lock = { .l_type = F_UNLCK, .l_whence = SEEK_SET };

  fcntl (fd, F_OFD_SETLK, &lock);
}
