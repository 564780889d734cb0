/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Without log= there is a copy of the log beside each region that is a file.
 * Files that do not exist are created, but not before everything else has been
 * found to be right: a start that is refused leaves nothing behind.
 *
 * Later the keeper of the mirror and a thread that adds a leg open copies that could not
 * be opened at the start.  copies->lock owns the list then.  It is held while a copy is
 * opened, as long as the timeout of a server, so that no copy is opened twice.  It is
 * taken after add_lock of the legs, and before the locks of their table and of the log.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib.h>

#include "block-device.h"
#include "clock.h"
#include "copies.h"
#include "log.h"
#include "open-file.h"
#include "part.h"

#define SUFFIX ".dmlog"

struct copy {
  struct spec *spec;
  char *place;                  /* spec_absolute_text */
  char *leg;                    /* the id of that beside which it is, or NULL */
  mode_t mode;                  /* to create it with; 0: do not */
  struct bdev_opening *opening; /* until that has ended */
  struct io_region region;      /* bdev NULL: it does not exist */
  bool created;
};

struct copies {
  struct legs *legs;
  unsigned int timeout;
  bool are_beside;              /* the legs, as none was named */
  pthread_mutex_t lock;         /* owns the rest, after the start; see above */
  uint64_t not_before;          /* clock_now: when those that were named are tried again */
  unsigned int n;
  struct copy list[DM_IO_MAX_REGIONS];
};

/* Between two tries. */
#define RETRY_NSEC (5 * NSEC_PER_SEC)

/*----------------------------------------------------------------------
 * Where they are
 */

/* One beside a region that is missing may still be worth reading; it is not used
 * before the next start then.
 */
static int
check_copy (struct copy *copy, bool may_be_read_only, char **message)
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
  else if (dm_bdev_read_only (bdev) && !may_be_read_only)
    *message = g_strdup_printf ("log copy '%s': cannot be written; make it "
                                "writable for the user of this process",
                                spec->text);
  else if (part_take (spec, copy->region.bdev, &copy->region, message))
    return 0;
  return EINVAL;
}

static bool
is_same_path (const struct spec *a, const struct spec *b)
{
  g_autofree char *path = spec_canonical_path (a);
  g_autofree char *other = spec_canonical_path (b);

  return !a->is_uri && !b->is_uri && strcmp (path, other) == 0;
}

/* Is there a region on the same file or device?  And is that direct? */
static bool
is_on_region (const struct copies *copies, const struct spec *spec,
              unsigned int *direct)
{
  struct spec *regions[DM_IO_MAX_REGIONS];
  unsigned int n = legs_specs (copies->legs, regions), i;
  bool found = false;

  for (i = 0; i < n; i++) {
    if (!found && is_same_path (spec, regions[i])) {
      found = true;
      *direct = regions[i]->direct;
    }
    spec_unref (regions[i]);
  }
  return found;
}

/* A device is direct for all of its parts or for none, and a region may be
 * opened later.
 */
static unsigned int
open_flags (const struct copies *copies, const struct spec *spec)
{
  unsigned int flags = spec->is_uri ? 0 : DM_BDEV_BUFFERED;

  is_on_region (copies, spec, &flags);
  return flags;
}

static void
begin_copy (const struct copies *copies, struct copy *copy,
            const char *device)
{
  const struct spec *spec = copy->spec;
  const struct dm_bdev_options options = {
    .flags = open_flags (copies, spec) | BDEV_IN_PARTS | BDEV_REMAKE,
    .timeout = copies->timeout,
  };

  copy->opening = bdev_open_begin (device, &options);
}

/* Returns 0 or an errno, positive, and a message. */
static int
end_copy (struct copy *copy, bool may_be_read_only, char **message)
{
  char *error;
  int err;

  copy->region.bdev = bdev_open_end (g_steal_pointer (&copy->opening),
                                     &error);
  if (copy->region.bdev != NULL)
    return check_copy (copy, may_be_read_only, message);
  err = errno;
  *message = g_strdup_printf ("log copy '%s': %s", copy->spec->text,
                              error != NULL ? error : strerror (err));
  free (error);
  return err;
}

/* There is room for one. */
static struct copy *
append (struct copies *copies, struct spec *spec, mode_t mode)
{
  struct copy *copy = &copies->list[copies->n++];

  *copy = (struct copy) {
    .spec = spec_ref (spec), .place = spec_absolute_text (spec), .mode = mode,
  };
  return copy;
}

/* One on the file of a region that is missing is not created. */
static bool
is_creatable (const struct copies *copies, const struct spec *spec)
{
  unsigned int direct;

  return !spec->is_uri && !is_on_region (copies, spec, &direct);
}

struct copies *
copies_begin (const struct params *params, struct legs *legs)
{
  struct copies *copies = g_new0 (struct copies, 1);
  struct copy *copy;
  unsigned int i;

  pthread_mutex_init (&copies->lock, NULL);
  copies->legs = legs;
  copies->timeout = params->timeout;
  copies->are_beside = params->num_logs == 0;
  for (i = 0; i < params->num_logs; i++) {
    copy = append (copies, params->logs[i],
                   is_creatable (copies, params->logs[i]) ?
                   S_IRUSR | S_IWUSR : 0);
    begin_copy (copies, copy, copy->spec->device);
  }
  return copies;
}

/* A copy that cannot be reached may be newer than the others, so that needs
 * the word of the user.
 */
static bool
use_given (struct copy *copy, const struct params *params)
{
  const struct spec *spec = copy->spec;
  bool creatable = copy->mode != 0;
  g_autofree char *message = NULL;
  int err = end_copy (copy, false, &message);

  if (err == 0 || (err == ENOENT && creatable))
    return true;
  if (params->init != INIT_NOT_SAID || !may_come_back (spec, err)) {
    report_error ("%s", message);
    return false;
  }
  report_error ("%s%s", message, params->degraded ? "" :
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

/* There is room for one. */
static struct copy *
append_beside (struct copies *copies, const struct spec *region,
               const char *id, mode_t mode)
{
  g_autofree char *path = spec_canonical_path (region);
  g_autoptr (GString) text = g_string_new (path);
  g_autofree char *message = NULL;
  struct spec *spec;
  struct copy *copy;

  g_string_append (text, SUFFIX);
  g_string_replace (text, ",", ",,", 0);
  spec = spec_parse_log (text->str, &message);
  copy = append (copies, spec, mode);
  copy->leg = g_strdup (id);
  spec_unref (spec);
  return copy;
}

/* That of a region that is missing is used if it is there. */
static bool
use_beside (struct copies *copies, unsigned int i)
{
  const struct spec *region = legs_spec (copies->legs, i);
  bool missing = legs_get (copies->legs, i).region.bdev == NULL;
  g_autofree char *path = spec_canonical_path (region);
  g_autofree char *message = NULL;
  struct copy *copy;
  int err;

  if (region->is_uri || (!missing && file_mode (path) == 0))
    return true;
  copy = append_beside (copies, region, legs_get (copies->legs, i).id,
                        missing ? 0 : file_mode (path));
  begin_copy (copies, copy, copy->spec->device);
  err = end_copy (copy, missing, &message);
  if (err == 0 || err == ENOENT || (missing && may_come_back (copy->spec, err)))
    return true;
  report_error ("%s", message);
  return false;
}

static bool
open_given (struct copies *copies, const struct params *params)
{
  unsigned int i, usable = 0;

  for (i = 0; i < copies->n; i++)
    if (!use_given (&copies->list[i], params))
      return false;
  for (i = 0; i < copies->n; i++)
    if (copies->list[i].region.bdev != NULL || copies->list[i].mode != 0)
      usable++;
  if (usable == 0)
    report_error ("no copy of the log can be reached, so nothing is known of "
                  "the regions; make one reachable");
  return usable > 0;
}

static bool
open_beside (struct copies *copies)
{
  unsigned int i;

  for (i = 0; i < legs_count (copies->legs); i++)
    if (!use_beside (copies, i))
      return false;
  if (copies->n > 0)
    return true;
  report_error ("no region is a file, so there is no place for the log beside "
                "one: say log=FILE, best several times on different disks, "
                "or log=none if failed and interrupted writes need not be "
                "remembered");
  return false;
}

bool
copies_open (struct copies *copies, const struct params *params)
{
  return params->num_logs > 0 ? open_given (copies, params) :
    open_beside (copies);
}

/*----------------------------------------------------------------------
 * Later
 */

static struct dm_log_copy
as_log_copy (const struct copy *copy)
{
  return (struct dm_log_copy) {
    .region = copy->region, .name = copy->spec->text, .place = copy->place,
    .leg = copy->leg,
  };
}

/* Returns 0, or an errno, positive, and a message. */
static int
open_later (struct copies *copies, struct dm_log *log, struct copy *copy,
            char **message)
{
  struct dm_log_copy description;
  int err;

  begin_copy (copies, copy, copy->spec->absolute);
  err = end_copy (copy, false, message);
  if (err != 0) {
    part_close (copy->region.bdev);
    copy->region.bdev = NULL;
    return err;
  }
  description = as_log_copy (copy);
  dm_log_add_copy (log, &description);
  return 0;
}

/* Those that were named are beside no leg, and may have been used with any.  0, or -EAGAIN
 * if some are still not open.
 */
static int
open_named_later (struct copies *copies, struct dm_log *log)
{
  bool again = clock_now () >= copies->not_before;
  unsigned int i;
  int r = 0;

  for (i = 0; i < copies->n; i++) {
    struct copy *copy = &copies->list[i];
    g_autofree char *message = NULL;

    if (copy->region.bdev == NULL && again &&
        open_later (copies, log, copy, &message) != 0)
      g_debug ("%s", message);
    if (copy->region.bdev == NULL)
      r = -EAGAIN;
  }
  if (again && r < 0)
    copies->not_before = clock_now () + RETRY_NSEC;
  return r;
}

/* That beside the leg of this id, which may have been added since the start; or NULL,
 * if there cannot be one.
 */
static struct copy *
find_beside (struct copies *copies, const char *id)
{
  g_autofree char *path = NULL;
  struct copy *copy = NULL;
  struct spec *region;
  unsigned int i;

  for (i = 0; i < copies->n; i++)
    if (g_strcmp0 (copies->list[i].leg, id) == 0)
      return &copies->list[i];
  region = legs_find_spec (copies->legs, id);
  if (region == NULL)
    return NULL;
  path = spec_canonical_path (region);
  if (!region->is_uri && file_mode (path) != 0 &&
      copies->n < DM_IO_MAX_REGIONS)
    copy = append_beside (copies, region, id, 0);
  spec_unref (region);
  return copy;
}

int
copies_open_later (struct copies *copies, struct dm_log *log, const char *id,
                   char **error)
{
  g_autofree char *message = NULL;
  struct copy *copy;
  int err = 0, r = 0;

  pthread_mutex_lock (&copies->lock);
  if (!copies->are_beside)
    r = open_named_later (copies, log);
  else {
    copy = find_beside (copies, id);
    if (copy != NULL && copy->region.bdev == NULL)
      err = open_later (copies, log, copy, &message);
  }
  pthread_mutex_unlock (&copies->lock);
  if (err == 0 || err == ENOENT)
    return r;
  *error = g_steal_pointer (&message);
  return -err;
}

/*----------------------------------------------------------------------
 * A log that is not wanted
 */

/* Open those that are there, only to read.  Returns how many; *OK is false if one
 * cannot be opened.
 */
static unsigned int
peek_beside (const struct legs *legs, struct dm_log_copy *list, bool *ok)
{
  const struct dm_bdev_options options = {
    .flags = DM_BDEV_READ_ONLY | DM_BDEV_BUFFERED | BDEV_NO_LOCK,
  };
  unsigned int n = 0, i;

  for (i = 0; i < legs_count (legs); i++) {
    const struct spec *region = legs_spec (legs, i);
    g_autofree char *path = spec_canonical_path (region);
    g_autofree char *beside = g_strconcat (path, SUFFIX, NULL);
    struct block_device *bdev;
    char *error = NULL;

    if (region->is_uri || file_mode (path) == 0 || file_mode (beside) == 0)
      continue;
    bdev = dm_bdev_open (beside, &options, &error);
    *ok = *ok && bdev != NULL;
    if (bdev == NULL)
      report_error ("log=none: the log beside region '%s' cannot be looked at: "
                    "%s", region->text, error);
    else
      list[n++] = (struct dm_log_copy) {
        .region = { .bdev = bdev, .count = dm_bdev_sectors (bdev) },
        .name = dm_bdev_name (bdev),
      };
    free (error);
  }
  return n;
}

/* What LOG says of a leg, or NULL if that is not against using it, beside others or
 * alone.
 */
static const char *
objection (struct dm_log *log, const struct spec *spec, bool alone)
{
  g_autofree char *id = spec_id (spec);
  struct dm_log_leg leg;
  unsigned int i;

  for (i = 0; i < dm_log_num_legs (log); i++) {
    dm_log_get_leg (log, i, &leg);
    if (strcmp (leg.id, id) != 0)
      continue;
    if (leg.state != DM_LOG_IN_SYNC)
      return "is out of sync: it has missed writes";
    return dm_log_is_dirty (log) && !alone ?
      "may differ from the others, as the last server did not end in order" :
      NULL;
  }
  return NULL;
}

static bool
all_are_alike (const struct legs *legs, struct dm_log *log, const char *name)
{
  const char *why;
  unsigned int i;

  for (i = 0; i < legs_count (legs); i++) {
    why = objection (log, legs_spec (legs, i), legs_count (legs) == 1);
    if (why == NULL)
      continue;
    report_error ("log=none: region '%s' %s, says the log in %s; leave out "
                  "log=none, so that it is recovered, or remove the copies of "
                  "the log if they are wrong", legs_spec (legs, i)->text, why,
                  name);
    return false;
  }
  return true;
}

bool
copies_allow_none (const struct legs *legs)
{
  struct dm_log_copy list[DM_IO_MAX_REGIONS];
  struct dm_log *log = NULL;
  char *error = NULL;
  bool ok = true;
  unsigned int n = peek_beside (legs, list, &ok), i;

  if (n > 0)
    log = dm_log_load (n, list, &error);
  if (log != NULL)
    ok = all_are_alike (legs, log, list[0].name) && ok;
  else if (error != NULL) {
    report_error ("log=none: %s", error);
    ok = false;
  }
  g_free (error);
  dm_log_free (log);
  for (i = 0; i < n; i++)
    dm_bdev_close (list[i].region.bdev);
  return ok;
}

void
copies_free (struct copies *copies)
{
  unsigned int i;

  if (copies == NULL)
    return;
  for (i = 0; i < copies->n; i++) {
    if (copies->list[i].opening != NULL)
      bdev_open_cancel (copies->list[i].opening);
    part_close (copies->list[i].region.bdev);
    spec_unref (copies->list[i].spec);
    g_free (copies->list[i].place);
    g_free (copies->list[i].leg);
  }
  pthread_mutex_destroy (&copies->lock);
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
      list[n++] = as_log_copy (copy);
  }
  return n;
}

unsigned int
copies_get (const struct copies *copies, struct dm_log_copy *list)
{
  unsigned int n = collect (copies, false, list);

  return n + collect (copies, true, list + n);
}

char *
copies_names (const struct copies *copies)
{
  GString *names = g_string_new (NULL);
  unsigned int i;

  for (i = 0; i < copies->n; i++)
    g_string_append_printf (names, "%s%s", i > 0 ? ", " : "",
                            copies->list[i].spec->text);
  return g_string_free (names, FALSE);
}

/*----------------------------------------------------------------------
 * Creating them
 */

static bool
check_size (const struct copy *copy, sector_t sectors)
{
  if (copy->region.bdev == NULL || copy->region.count >= sectors)
    return true;
  report_error ("log copy '%s': is too small: it has %" PRIu64 " sectors of %d "
                "bytes, and the log of this volume needs %" PRIu64 "; "
                "remove it if it is a file, and it will be made",
                copy->spec->text, copy->region.count, DM_IO_SECTOR_SIZE,
                sectors);
  return false;
}

/* Returns 0 or an errno, positive. */
static int
fill_file (int fd, const struct copy *copy, sector_t sectors)
{
  sector_t end = copy->spec->sector + sectors;

  if (fchmod (fd, copy->mode) == -1 ||
      ftruncate (fd, end * DM_IO_SECTOR_SIZE) == -1 || fsync (fd) == -1)
    return errno;
  return -open_file_sync_directory (copy->spec->device);
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
  report_error ("log copy '%s': %s: cannot be created: %s; make that possible, "
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
  begin_copy (copies, copy, copy->spec->device);
  if (end_copy (copy, false, &message) == 0)
    return true;
  report_error ("%s", message);
  return false;
}

bool
copies_create (struct copies *copies, sector_t least, sector_t sectors)
{
  unsigned int i;

  for (i = 0; i < copies->n; i++)
    if (!check_size (&copies->list[i], least))
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
