/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Files and block devices that are open in this process: what keeps out
 * others, once for all who use a part of one.
 */

#ifndef DMIO_OPEN_FILE_H
#define DMIO_OPEN_FILE_H

#include <stdbool.h>
#include <sys/stat.h>

#include "storage.h"

/* It does not change but for users and next, and in open_file_renew. */
struct open_file {
  /* It has the lock, and of a block device it is the claim (O_EXCL).  No ring
   * sees it, so both end when it is closed.
   */
  int fd;
  bool direct;                  /* all transfers are past the page cache */
  bool in_parts;                /* may be open several times */
  char *name;
  struct stat st;
  struct storage storage;
  unsigned int users;           /* atomic; changed under open_files_lock */
  struct open_file *next;       /* owned by open_files_lock */
};

/* Open and lock PATH, which is ST, a file or block device; or one more time, if
 * all who have it open have said BDEV_IN_PARTS: then it stays as direct as it
 * was, as neighbours may share a page of the cache.  FLAGS are those of dm_bdev_open.
 * NULL with *ERROR and errno set as by bdev_open_failed.
 */
extern struct open_file *open_file_get (const char *path,
                                        const struct stat *st,
                                        unsigned int flags, char **error);
extern void open_file_put (struct open_file *file);

/* Another file, ST, has taken the place of this one, which has one user: lock that
 * instead.  Returns 0, or -1 with errno and a message; then all is as it was.
 */
extern int open_file_renew (struct open_file *file, const char *path,
                            const struct stat *st, char **error);

/* Say why PATH could not be opened: errno; or only not with O_DIRECT. */
extern void open_file_failed (const char *path, char **error);
extern void open_file_no_direct (const char *path, char **error);

/* Open PATH for writing if FLAGS want that and it is possible.  Returns a
 * descriptor of what ST is, or -1 with *ERROR and errno set.
 */
extern int open_file_open (const char *path, const struct stat *st,
                           int oflags, unsigned int flags, bool *read_only,
                           char **error);

/* Make it durable that the file is in its directory.  0 or a negative errno. */
extern int open_file_sync_directory (const char *path);

#endif /* DMIO_OPEN_FILE_H */
