/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Without log= there is a copy of the log beside each region that is a file.
 * Files that do not exist are created, but not before everything else has been
 * found to be right: a start that is refused leaves nothing behind.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <glib.h>

#include "block-device.h"
#include "copies.h"

#define SUFFIX ".dmlog"

struct copy {
  struct spec *spec;
  mode_t mode;                  /* to create it with; 0: do not */
  struct io_region region;      /* bdev NULL: it does not exist */
  bool created;
};

struct copies {
  unsigned int timeout;
  unsigned int n;
  struct copy list[DM_IO_MAX_REGIONS];
};

/*----------------------------------------------------------------------
 * Where they are
 */

static int
check_copy (struct copy *copy, char **message)
{
  const struct spec *spec = copy->spec;
  const struct block_device *bdev = copy->region.bdev;
  const sector_t least = dm_log_copy_sectors (DM_LOG_MIN_CHUNK,
                                              DM_LOG_MIN_CHUNK);

  if (dm_bdev_sectors (bdev) < least)
    *message = g_strdup_printf ("log copy '%s': is too small for a log: it has "
                                "%" PRIu64 " bytes; remove it if it is a file, "
                                "and it will be made", spec->text,
                                bdev->size);
  else if (dm_bdev_read_only (bdev))
    *message = g_strdup_printf ("log copy '%s': cannot be written; make it "
                                "writable for the user of this process",
                                spec->text);
  else if (spec_resolve (spec, copy->region.bdev, &copy->region, message))
    return 0;
  return EINVAL;
}

/* Returns 0 or an errno, positive, and a message. */
static int
open_copy (struct copies *copies, struct copy *copy, char **message)
{
  const struct spec *spec = copy->spec;
  const struct dm_bdev_options options = {
    .flags = spec->is_uri ? 0 : DM_BDEV_BUFFERED,
    .timeout = copies->timeout,
  };
  char *error;
  int err;

  copy->region.bdev = dm_bdev_open (spec->device, &options, &error);
  if (copy->region.bdev != NULL)
    return check_copy (copy, message);
  err = errno;
  *message = g_strdup_printf ("log copy '%s': %s", spec->text,
                              error != NULL ? error : strerror (err));
  free (error);
  return err;
}

static struct copy *
append (struct copies *copies, struct spec *spec, mode_t mode)
{
  struct copy *copy = &copies->list[copies->n++];

  *copy = (struct copy) { .spec = spec_ref (spec), .mode = mode };
  return copy;
}

/* A copy that cannot be reached may be newer than the others, so that needs
 * the word of the user.
 */
static bool
use_given (struct copies *copies, const struct params *params,
           struct spec *spec)
{
  struct copy *copy = append (copies, spec,
                              spec->is_uri ? 0 : S_IRUSR | S_IWUSR);
  g_autofree char *message = NULL;
  int err = open_copy (copies, copy, &message);

  if (err == 0 || (err == ENOENT && !spec->is_uri))
    return true;
  if (params->init != INIT_NOT_SAID || !may_come_back (spec, err)) {
    nbdkit_error ("%s", message);
    return false;
  }
  nbdkit_error ("%s%s", message, params->degraded ? "" :
                "; it may be newer than other copies of the log: make it "
                "reachable, or say degraded=yes to start without it");
  copy->mode = 0;
  return params->degraded;
}

/* The mode of a regular file, or 0 if there is none. */
static mode_t
file_mode (const char *path)
{
  struct stat st;

  return stat (path, &st) == 0 && S_ISREG (st.st_mode) ?
    st.st_mode & 0666 : 0;
}

/* That of a region that is missing is used if it is there. */
static bool
use_beside (struct copies *copies, const struct legs *legs, unsigned int i)
{
  const struct spec *region = legs_spec (legs, i);
  bool missing = legs_get (legs, i).region.bdev == NULL;
  g_autofree char *path = spec_canonical_path (region);
  g_autoptr (GString) text = g_string_new (path);
  g_autofree char *message = NULL;
  struct spec *spec;
  struct copy *copy;
  int err;

  if (region->is_uri || (!missing && file_mode (path) == 0))
    return true;
  g_string_append (text, SUFFIX);
  g_string_replace (text, ",", ",,", 0);
  spec = spec_parse_log (text->str, &message);
  copy = append (copies, spec, missing ? 0 : file_mode (path));
  spec_unref (spec);
  err = open_copy (copies, copy, &message);
  if (err == 0 || err == ENOENT || (missing && may_come_back (copy->spec, err)))
    return true;
  nbdkit_error ("%s", message);
  return false;
}

static bool
open_given (struct copies *copies, const struct params *params)
{
  unsigned int i, usable = 0;

  for (i = 0; i < params->num_logs; i++)
    if (!use_given (copies, params, params->logs[i]))
      return false;
  for (i = 0; i < copies->n; i++)
    if (copies->list[i].region.bdev != NULL || copies->list[i].mode != 0)
      usable++;
  if (usable == 0)
    nbdkit_error ("no copy of the log can be reached, so nothing is known of "
                  "the regions; make one reachable");
  return usable > 0;
}

static bool
open_beside (struct copies *copies, const struct legs *legs)
{
  unsigned int i;

  for (i = 0; i < legs_count (legs); i++)
    if (!use_beside (copies, legs, i))
      return false;
  if (copies->n > 0)
    return true;
  nbdkit_error ("no region is a file, so there is no place for the log beside "
                "one: say log=FILE, best several times on different disks, "
                "or log=none if failed and interrupted writes need not be "
                "remembered");
  return false;
}

struct copies *
copies_open (const struct params *params, const struct legs *legs)
{
  struct copies *copies = g_new0 (struct copies, 1);

  copies->timeout = params->timeout;
  if (params->num_logs > 0 ? open_given (copies, params) :
      open_beside (copies, legs))
    return copies;
  copies_free (copies);
  return NULL;
}

void
copies_free (struct copies *copies)
{
  unsigned int i;

  if (copies == NULL)
    return;
  for (i = 0; i < copies->n; i++) {
    dm_bdev_close (copies->list[i].region.bdev);
    spec_unref (copies->list[i].spec);
  }
  g_free (copies);
}

void
copies_rest (struct copies *copies)
{
  unsigned int i;

  for (i = 0; i < copies->n; i++)
    if (copies->list[i].region.bdev != NULL)
      bdev_rest (copies->list[i].region.bdev);
}

static unsigned int
collect (const struct copies *copies, bool created, struct dm_log_copy *list)
{
  unsigned int i, n = 0;

  for (i = 0; i < copies->n; i++) {
    const struct copy *copy = &copies->list[i];

    if (copy->region.bdev != NULL && copy->created == created)
      list[n++] = (struct dm_log_copy) {
        .region = copy->region, .name = copy->spec->text,
      };
  }
  return n;
}

unsigned int
copies_get (const struct copies *copies, struct dm_log_copy *list)
{
  unsigned int n = collect (copies, false, list);

  return n + collect (copies, true, list + n);
}

/*----------------------------------------------------------------------
 * Creating them
 */

static bool
check_size (const struct copy *copy, sector_t sectors)
{
  if (copy->region.bdev == NULL || copy->region.count >= sectors)
    return true;
  nbdkit_error ("log copy '%s': is too small: it has %" PRIu64 " sectors of %d "
                "bytes, and the log of this volume needs %" PRIu64 "; "
                "remove it if it is a file, and it will be made",
                copy->spec->text, copy->region.count, DM_IO_SECTOR_SIZE,
                sectors);
  return false;
}

static int
sync_directory (const char *path)
{
  g_autofree char *directory = g_path_get_dirname (path);
  int fd = open (directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int err = 0;

  if (fd == -1)
    return errno;
  if (fsync (fd) == -1)
    err = errno;
  close (fd);
  return err;
}

/* Returns 0 or an errno, positive. */
static int
fill_file (int fd, const struct copy *copy, sector_t sectors)
{
  sector_t end = copy->spec->sector + sectors;

  if (fchmod (fd, copy->mode) == -1 ||
      ftruncate (fd, end * DM_IO_SECTOR_SIZE) == -1 || fsync (fd) == -1)
    return errno;
  return sync_directory (copy->spec->device);
}

static bool
create_file (struct copy *copy, sector_t sectors)
{
  const char *path = copy->spec->device;
  int fd, err;

  fd = open (path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR);
  copy->created = fd != -1;
  err = fd == -1 ? errno : fill_file (fd, copy, sectors);
  if (fd != -1)
    close (fd);
  if (err == 0)
    return true;
  nbdkit_error ("log copy '%s': %s: cannot be created: %s; make that possible, "
                "or name another place with log=", copy->spec->text, path,
                strerror (err));
  return false;
}

static bool
create (struct copies *copies, struct copy *copy, sector_t sectors)
{
  g_autofree char *message = NULL;

  if (copy->region.bdev != NULL || copy->mode == 0)
    return true;
  if (!create_file (copy, sectors))
    return false;
  if (open_copy (copies, copy, &message) == 0)
    return true;
  nbdkit_error ("%s", message);
  return false;
}

bool
copies_create (struct copies *copies, sector_t sectors)
{
  unsigned int i;

  for (i = 0; i < copies->n; i++)
    if (!check_size (&copies->list[i], sectors))
      return false;
  for (i = 0; i < copies->n; i++)
    if (!create (copies, &copies->list[i], sectors)) {
      copies_remove_created (copies);
      return false;
    }
  return true;
}

void
copies_remove_created (struct copies *copies)
{
  unsigned int i;

  for (i = 0; i < copies->n; i++)
    if (copies->list[i].created) {
      unlink (copies->list[i].spec->device);
      copies->list[i].created = false;
    }
}
