/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Opening regions: at the start, by their relative paths, later, when
 * nbdkit has gone to another directory, by absolute ones.
 *
 * Threads: at the start there is only one.  Later the mirror reopens a leg
 * and the user adds one, each from a thread of its own.  The lock
 * owns the table, but is not held while a device is opened, as that can take
 * as long as a server's timeout: meanwhile the leg is busy.  add_lock lets
 * one leg be added after another.  The mirror is called with add_lock only.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <glib.h>

#include "block-device.h"
#include "legs.h"
#include "log.h"
#include "part.h"

struct open_leg {
  struct spec *spec;
  char *id;
  struct bdev_opening *opening; /* from legs_begin to legs_open */
  struct io_region region;      /* bdev NULL: it is missing */
  bool busy;                    /* somebody opens it, or adds it */
  bool added;                   /* by the user, so the mirror uses it */
};

struct legs {
  unsigned int timeout;
  bool must_write;              /* with a log: one that is read-only is missing */
  pthread_mutex_t add_lock;
  pthread_mutex_t lock;         /* owns the rest, after the start */
  unsigned int n;
  struct open_leg legs[DM_IO_MAX_REGIONS];
};

bool
may_come_back (const struct spec *spec, int err)
{
  switch (err) {
  case ENOENT: case ENOTDIR: case ENXIO: case ENODEV: case EIO:
  case ESTALE: case ENOTCONN: case ETIMEDOUT: case EHOSTDOWN:
  case EROFS: case EACCES: case EPERM:
    return true;
  default:
    return spec->is_uri && err != EINVAL && err != EBUSY;
  }
}

static struct bdev_opening *
begin_region (const struct spec *spec, const char *device,
              unsigned int timeout)
{
  const struct dm_bdev_options options = {
    .flags = spec->direct | BDEV_IN_PARTS, .timeout = timeout,
  };

  return bdev_open_begin (device, &options);
}

/* With a log every region has to be kept up to date. */
static bool
check_writable (const struct legs *legs, const struct spec *spec,
                const struct block_device *bdev, char **message)
{
  if (!legs->must_write || !bdev->read_only)
    return true;
  *message = g_strdup_printf ("region '%s': cannot be written; make it, or its "
                              "file system or server, writable for the user of "
                              "this process", spec->text);
  return false;
}

/* Returns 0, or an errno, positive, and a message. */
static int
end_region (const struct legs *legs, const struct spec *spec,
            struct bdev_opening *opening, struct io_region *region,
            char **message)
{
  struct block_device *bdev;
  char *error;
  int err;

  bdev = bdev_open_end (opening, &error);
  if (bdev == NULL) {
    err = errno;
    *message = g_strdup_printf ("region '%s': %s", spec->text,
                                error != NULL ? error : strerror (err));
    free (error);
    return err;
  }
  if (!check_writable (legs, spec, bdev, message))
    err = EROFS;
  else if (!part_take (spec, bdev, region, message))
    err = EINVAL;
  else
    return 0;
  part_close (bdev);
  region->bdev = NULL;
  return err;
}

static struct open_leg *
find_id (struct legs *legs, const char *id)
{
  unsigned int i;

  for (i = 0; i < legs->n; i++)
    if (strcmp (legs->legs[i].id, id) == 0)
      return &legs->legs[i];
  return NULL;
}

/* There is room for one. */
static struct open_leg *
append (struct legs *legs, struct spec *spec)
{
  struct open_leg *leg = &legs->legs[legs->n++];

  *leg = (struct open_leg) {
    .spec = spec_ref (spec), .id = spec_id (spec),
  };
  return leg;
}

/*----------------------------------------------------------------------
 * The start
 */

/* What to do about a region that cannot be opened and has to be there. */
static const char *
remedy (const struct spec *spec, int err)
{
  if (spec->is_uri)
    return may_come_back (spec, err) ?
      "; correct its name, or make the server reachable" : "";
  return err == ENOENT ?
    ", or create it first, for example with truncate(1)" : "";
}

struct legs *
legs_begin (const struct params *params)
{
  struct legs *legs = g_new0 (struct legs, 1);
  struct open_leg *leg;
  unsigned int i;

  legs->timeout = params->timeout;
  legs->must_write = !params->log_none;
  pthread_mutex_init (&legs->add_lock, NULL);
  pthread_mutex_init (&legs->lock, NULL);
  for (i = 0; i < params->num_regions; i++) {
    leg = append (legs, params->regions[i]);
    leg->opening = begin_region (leg->spec, leg->spec->device, legs->timeout);
  }
  return legs;
}

/* Only a mirror with a log, so not a new one, can do without a region. */
static bool
open_first (const struct legs *legs, struct open_leg *leg,
            const struct params *params)
{
  bool needed = params->log_none || params->init != INIT_NOT_SAID;
  g_autofree char *message = NULL;
  int err;

  err = end_region (legs, leg->spec, g_steal_pointer (&leg->opening),
                    &leg->region, &message);
  if (err == 0)
    return true;
  report_error ("%s%s", message, needed ? remedy (leg->spec, err) : "");
  return !needed && may_come_back (leg->spec, err);
}

bool
legs_open (struct legs *legs, const struct params *params)
{
  unsigned int i;

  for (i = 0; i < legs->n; i++)
    if (!open_first (legs, &legs->legs[i], params))
      return false;
  return true;
}

void
legs_free (struct legs *legs)
{
  unsigned int i;

  if (legs == NULL)
    return;
  for (i = 0; i < legs->n; i++) {
    if (legs->legs[i].opening != NULL)
      bdev_open_cancel (legs->legs[i].opening);
    part_close (legs->legs[i].region.bdev);
    g_free (legs->legs[i].id);
    spec_unref (legs->legs[i].spec);
  }
  pthread_mutex_destroy (&legs->lock);
  pthread_mutex_destroy (&legs->add_lock);
  g_free (legs);
}

void
legs_rest (struct legs *legs)
{
  unsigned int i;

  for (i = 0; i < legs->n; i++)
    if (legs->legs[i].region.bdev != NULL)
      bdev_rest (legs->legs[i].region.bdev);
}

unsigned int
legs_count (const struct legs *legs)
{
  return legs->n;
}

const struct spec *
legs_spec (const struct legs *legs, unsigned int i)
{
  return legs->legs[i].spec;
}

static struct dm_mirror_leg
as_mirror_leg (const struct open_leg *leg)
{
  return (struct dm_mirror_leg) {
    .region = leg->region,
    .name = leg->spec->text,
    .id = leg->id,
    .write_mostly = leg->spec->write_mostly,
  };
}

struct dm_mirror_leg
legs_get (const struct legs *legs, unsigned int i)
{
  return as_mirror_leg (&legs->legs[i]);
}

char *
legs_missing (const struct legs *legs)
{
  GString *names = g_string_new (NULL);
  unsigned int i;

  for (i = 0; i < legs->n; i++)
    if (legs->legs[i].region.bdev == NULL)
      g_string_append_printf (names, "%sregion '%s'",
                              names->len > 0 ? ", " : "",
                              legs->legs[i].spec->text);
  return g_string_free (names, names->len == 0);
}

/*----------------------------------------------------------------------
 * Later
 */

/* Open it if it is not open.  It is busy, so nobody else will. */
static int
open_again (struct legs *legs, struct open_leg *leg, char **error)
{
  struct io_region region = leg->region;
  const struct spec *spec = leg->spec;
  int err = 0;

  if (region.bdev == NULL)
    err = end_region (legs, spec,
                      begin_region (spec, spec->absolute, legs->timeout),
                      &region, error);
  if (err != 0)
    return err;
  pthread_mutex_lock (&legs->lock);
  leg->region = region;
  pthread_mutex_unlock (&legs->lock);
  return 0;
}

static struct open_leg *
find_name (struct legs *legs, const char *name)
{
  unsigned int i;

  for (i = 0; i < legs->n; i++)
    if (strcmp (legs->legs[i].spec->text, name) == 0)
      return &legs->legs[i];
  return find_id (legs, name);
}

/* Nobody else may open it until it is released. */
static bool
try_to_hold (struct legs *legs, struct open_leg *leg)
{
  bool held;

  pthread_mutex_lock (&legs->lock);
  held = !leg->busy;
  leg->busy = true;
  pthread_mutex_unlock (&legs->lock);
  return held;
}

static void
release (struct legs *legs, struct open_leg *leg)
{
  pthread_mutex_lock (&legs->lock);
  leg->busy = false;
  pthread_mutex_unlock (&legs->lock);
}

unsigned int
legs_specs (struct legs *legs, struct spec **specs)
{
  unsigned int n, i;

  pthread_mutex_lock (&legs->lock);
  n = legs->n;
  for (i = 0; i < n; i++)
    specs[i] = spec_ref (legs->legs[i].spec);
  pthread_mutex_unlock (&legs->lock);
  return n;
}

struct spec *
legs_find_spec (struct legs *legs, const char *id)
{
  struct spec *spec = NULL;
  struct open_leg *leg;

  pthread_mutex_lock (&legs->lock);
  leg = find_id (legs, id);
  if (leg != NULL)
    spec = spec_ref (leg->spec);
  pthread_mutex_unlock (&legs->lock);
  return spec;
}

bool
legs_reopen (struct legs *legs, const char *name, struct io_region *region)
{
  g_autofree char *message = NULL;
  struct open_leg *leg;
  int err;

  pthread_mutex_lock (&legs->lock);
  leg = find_name (legs, name);
  pthread_mutex_unlock (&legs->lock);
  if (leg == NULL || !try_to_hold (legs, leg))
    return false;
  err = open_again (legs, leg, &message);
  *region = leg->region;
  release (legs, leg);
  if (err != 0)
    g_debug ("%s", message);
  return err == 0;
}

void
legs_unopen (struct legs *legs, struct io_region *region)
{
  struct block_device *bdev = NULL;
  unsigned int i;

  pthread_mutex_lock (&legs->lock);
  for (i = 0; i < legs->n; i++) {
    struct open_leg *leg = &legs->legs[i];

    if (leg->region.bdev == region->bdev && !leg->busy && !leg->added) {
      bdev = leg->region.bdev;
      leg->region = (struct io_region) { .bdev = NULL };
    }
  }
  pthread_mutex_unlock (&legs->lock);
  part_close (bdev);
}

/* The leg that has this number in the mirror. */
static struct open_leg *
find_number (struct legs *legs, struct dm_mirror *mirror, const char *text)
{
  unsigned int i;
  guint64 number;

  if (!g_ascii_string_to_unsigned (text, 10, 0, DM_IO_MAX_REGIONS, &number,
                                   NULL))
    return NULL;
  for (i = 0; i < legs->n; i++)
    if (dm_mirror_find_leg (mirror, legs->legs[i].id) == (int) number)
      return &legs->legs[i];
  return NULL;
}

/* With add_lock, so the table does not grow meanwhile.  *IS_NEW if there
 * was none like it.
 */
static struct open_leg *
find_or_append (struct legs *legs, struct spec *spec, bool *is_new,
                char **error)
{
  g_autofree char *id = spec_id (spec);
  struct open_leg *leg = find_id (legs, id);

  if (!spec->is_uri && !g_path_is_absolute (spec->device))
    *error = g_strdup_printf ("region '%s': give an absolute path: the server "
                              "is in another directory", spec->text);
  else if (leg == NULL && legs->n == DM_IO_MAX_REGIONS)
    *error = g_strdup_printf ("region '%s': there can be at most %zu regions",
                              spec->text, DM_IO_MAX_REGIONS);
  if (*error != NULL)
    return NULL;

  *is_new = leg == NULL;
  if (leg != NULL)
    return leg;
  pthread_mutex_lock (&legs->lock);
  leg = append (legs, spec);
  pthread_mutex_unlock (&legs->lock);
  return leg;
}

static struct open_leg *
find_to_add (struct legs *legs, struct dm_mirror *mirror, const char *text,
             bool *is_new, char **error)
{
  struct open_leg *leg = find_number (legs, mirror, text);
  struct spec *spec;

  *is_new = false;
  if (leg == NULL)
    leg = find_name (legs, text);
  if (leg != NULL)
    return leg;
  spec = spec_parse_region (text, error);
  if (spec != NULL)
    leg = find_or_append (legs, spec, is_new, error);
  spec_unref (spec);
  return leg;
}

/* It was not added: as if that had not been tried. */
static void
take_back (struct legs *legs, struct open_leg *leg, bool was_open,
           bool is_new)
{
  pthread_mutex_lock (&legs->lock);
  if (!was_open) {
    part_close (leg->region.bdev);
    leg->region = (struct io_region) { .bdev = NULL };
  }
  if (is_new) {
    legs->n--;
    g_free (leg->id);
    spec_unref (leg->spec);
  }
  pthread_mutex_unlock (&legs->lock);
}

static int
add_held (struct legs *legs, struct dm_mirror *mirror, struct open_leg *leg,
          bool is_new, enum dm_mirror_add add, char **error)
{
  bool was_open = leg->region.bdev != NULL;
  struct dm_mirror_leg description;
  int number = -1;

  if (open_again (legs, leg, error) == 0) {
    description = as_mirror_leg (leg);
    description.add = add;
    number = dm_mirror_add (mirror, &description, error);
  }
  if (number < 0)
    take_back (legs, leg, was_open, is_new);
  pthread_mutex_lock (&legs->lock);
  leg->busy = false;
  leg->added = leg->added || number >= 0;
  pthread_mutex_unlock (&legs->lock);
  return number;
}

int
legs_add (struct legs *legs, struct dm_mirror *mirror, const char *text,
          enum dm_mirror_add add, char **error)
{
  struct open_leg *leg;
  int number = -1;
  bool is_new;

  pthread_mutex_lock (&legs->add_lock);
  leg = find_to_add (legs, mirror, text, &is_new, error);
  if (leg != NULL) {
    if (try_to_hold (legs, leg))
      number = add_held (legs, mirror, leg, is_new, add, error);
    else
      *error = g_strdup_printf ("region '%s': is just being opened; try "
                                "again", leg->spec->text);
  }
  pthread_mutex_unlock (&legs->add_lock);
  return number;
}
