/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* open_files_lock owns the list of what is open, which is there to refuse what
 * is open already; it is held while a file is opened, so that of two threads
 * that open the same file one is refused.  No other lock is taken under it.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include <glib.h>

#include "block-device.h"
#include "file-lock.h"
#include "open-file.h"

static pthread_mutex_t open_files_lock = PTHREAD_MUTEX_INITIALIZER;
static struct open_file *open_files;

static const char *
hint_for (int err)
{
  switch (err) {
  case ENOENT: return "; check the name";
  case EBUSY: return "; it, or a part of it, is mounted or open elsewhere";
  case EACCES: return "; the user of this process needs access to it";
  default: return "";
  }
}

void
open_file_failed (const char *path, char **error)
{
  int err = errno;

  bdev_open_failed (err, error, "%s: %s%s", path, strerror (err),
                    hint_for (err));
}

void
open_file_no_direct (const char *path, char **error)
{
  bdev_open_failed (EOPNOTSUPP, error, "%s: direct I/O (O_DIRECT) is not "
                    "possible there; use buffered I/O (direct=off)", path);
}

static bool
is_same (const struct stat *a, const struct stat *b)
{
  if ((a->st_mode & S_IFMT) != (b->st_mode & S_IFMT))
    return false;
  return S_ISREG (a->st_mode) ?
    a->st_dev == b->st_dev && a->st_ino == b->st_ino :
    a->st_rdev == b->st_rdev;
}

static int
open_for (const char *path, int oflags, unsigned int flags, bool *read_only)
{
  int fd = -1;

  oflags |= O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
  if (!(flags & DM_BDEV_READ_ONLY)) {
    fd = open (path, oflags | O_RDWR);
    if (fd == -1 && errno != EACCES && errno != EPERM && errno != EROFS)
      return -1;
  }
  *read_only = fd == -1;
  return fd != -1 ? fd : open (path, oflags | O_RDONLY);
}

int
open_file_open (const char *path, const struct stat *st, int oflags,
                unsigned int flags, bool *read_only, char **error)
{
  int fd = open_for (path, oflags, flags, read_only);
  struct stat now;

  if (fd == -1 && oflags & O_DIRECT && errno == EINVAL)
    open_file_no_direct (path, error);
  else if (fd == -1)
    open_file_failed (path, error);
  if (fd == -1 || (fstat (fd, &now) == 0 && is_same (st, &now)))
    return fd;
  close (fd);
  bdev_open_failed (EBUSY, error, "%s: was replaced while it was being "
                    "opened", path);
  return -1;
}

/*----------------------------------------------------------------------
 * Called with open_files_lock held.
 */

static struct open_file *
find_same (const struct stat *st)
{
  struct open_file *f;

  for (f = open_files; f != NULL; f = f->next)
    if (is_same (&f->st, st))
      return f;
  return NULL;
}

/* False if another has bytes of it.  A device is asked before it is claimed,
 * since the kernel does not say who has claimed its disk.
 */
static bool
check_storage (struct open_file *f, char **error)
{
  const struct open_file *other;
  bool read_only;
  int fd = -1;

  if (S_ISBLK (f->st.st_mode)) {
    fd = open_file_open (f->name, &f->st, 0, DM_BDEV_READ_ONLY, &read_only,
                         error);
    if (fd == -1)
      return false;
  }
  storage_find (fd, &f->st, &f->storage);
  if (fd != -1)
    close (fd);
  for (other = open_files; other != NULL; other = other->next)
    if (storage_overlaps (&f->storage, &other->storage)) {
      bdev_open_failed (EBUSY, error, "%s: has its bytes in the same place as "
                        "%s, which is already open; name only one of them",
                        f->name, other->name);
      return false;
    }
  return true;
}

static bool
open_and_lock (struct open_file *f, unsigned int flags, char **error)
{
  bool read_only;

  f->fd = open_file_open (f->name, &f->st,
                          S_ISBLK (f->st.st_mode) ? O_EXCL : 0, flags,
                          &read_only, error);
  return f->fd != -1 && file_lock (f->fd, f->name, read_only, error) == 0;
}

static void
free_file (struct open_file *f)
{
  if (f->fd != -1)
    close (f->fd);
  g_free (f->name);
  g_free (f);
}

static struct open_file *
open_new (const char *path, const struct stat *st, unsigned int flags,
          char **error)
{
  struct open_file *f = g_new0 (struct open_file, 1);
  int err;

  f->fd = -1;
  f->name = g_strdup (path);
  f->st = *st;
  f->in_parts = flags & BDEV_IN_PARTS;
  f->users = 1;
  f->direct = flags & DM_BDEV_DIRECT ||
    (S_ISBLK (st->st_mode) && !(flags & DM_BDEV_BUFFERED));
  if (check_storage (f, error) && open_and_lock (f, flags, error)) {
    f->next = open_files;
    open_files = f;
    return f;
  }
  err = errno;
  free_file (f);
  errno = err;
  return NULL;
}

/*----------------------------------------------------------------------*/

struct open_file *
open_file_get (const char *path, const struct stat *st, unsigned int flags,
               char **error)
{
  struct open_file *f;
  int err;

  pthread_mutex_lock (&open_files_lock);
  f = find_same (st);
  if (f == NULL)
    f = open_new (path, st, flags, error);
  else if (flags & BDEV_IN_PARTS && f->in_parts)
    __atomic_add_fetch (&f->users, 1, __ATOMIC_RELAXED);
  else {
    bdev_open_failed (EBUSY, error, "%s: is the same file as %s, which is "
                      "already open; name each file once", path, f->name);
    f = NULL;
  }
  err = errno;
  pthread_mutex_unlock (&open_files_lock);
  errno = err;
  return f;
}

/* Called with open_files_lock held. */
static int
open_another (struct open_file *file, struct open_file *new, char **error)
{
  if (find_same (&new->st) != NULL ||
      __atomic_load_n (&file->users, __ATOMIC_RELAXED) != 1) {
    bdev_open_failed (EBUSY, error, "%s: is open already", new->name);
    return -1;
  }
  return check_storage (new, error) && open_and_lock (new, 0, error) ? 0 : -1;
}

/* What NEW, which is locked, is now. */
static void
take_another (struct open_file *file, const struct open_file *new)
{
  file_unlock (file->fd);
  close (file->fd);
  file->fd = new->fd;
  file->st = new->st;
  file->storage = new->storage;
}

int
open_file_renew (struct open_file *file, const char *path,
                 const struct stat *st, char **error)
{
  struct open_file new = { .fd = -1, .name = (char *) path, .st = *st };
  int r = 0, err = 0;

  pthread_mutex_lock (&open_files_lock);
  if (!is_same (&file->st, st)) {
    r = open_another (file, &new, error);
    err = errno;
    if (r == 0)
      take_another (file, &new);
    else if (new.fd != -1)
      close (new.fd);
  }
  pthread_mutex_unlock (&open_files_lock);
  errno = err;
  return r;
}

int
open_file_sync_directory (const char *path)
{
  g_autofree char *directory = g_path_get_dirname (path);
  int fd = open (directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int r = 0;

  if (fd == -1)
    return -errno;
  if (fsync (fd) == -1)
    r = -errno;
  close (fd);
  return r;
}

void
open_file_put (struct open_file *file)
{
  struct open_file **p;
  bool last;

  pthread_mutex_lock (&open_files_lock);
  last = __atomic_sub_fetch (&file->users, 1, __ATOMIC_RELAXED) == 0;
  for (p = &open_files; last && *p != NULL; p = &(*p)->next)
    if (*p == file) {
      *p = file->next;
      break;
    }
  if (last) {
    file_unlock (file->fd);
    free_file (file);
  }
  pthread_mutex_unlock (&open_files_lock);
}
