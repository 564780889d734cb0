/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The locks of regions that are files or block devices, which keep out
 * other users of this library, and qemu.
 */

#ifndef DMIO_FILE_LOCK_H
#define DMIO_FILE_LOCK_H

#include <stdbool.h>

/* Lock it against writers, and unless READ_ONLY against readers.  0, or -1
 * with errno and *ERROR as bdev_open_failed sets them.
 */
extern int file_lock (int fd, const char *path, bool read_only, char **error);

/* True if others write to it, as their locks say.  Takes no lock. */
extern bool file_is_written (int fd);

/* To be called before close: another reference to the open file, such as that
 * of a process that was forked, would keep the lock.
 */
extern void file_unlock (int fd);

#endif /* DMIO_FILE_LOCK_H */
