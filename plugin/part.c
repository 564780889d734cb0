/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The lock owns the list of parts; no other lock is taken under it. */

#include <config.h>

#include <inttypes.h>
#include <pthread.h>
#include <string.h>

#include <glib.h>

#include "block-device.h"
#include "part.h"

struct part {
  struct part *next;
  char *name;                   /* "region 'a.img'" */
  bool is_log;
  struct io_region region;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct part *parts;

static struct part *
new_part (const struct spec *spec, const struct io_region *region)
{
  struct part *part = g_new0 (struct part, 1);

  part->name = g_strdup_printf ("%s '%s'", spec->what, spec->text);
  part->is_log = spec->is_log;
  part->region = *region;
  return part;
}

static void
free_part (struct part *part)
{
  g_free (part->name);
  g_free (part);
}

static bool
same_file (const struct part *a, const struct part *b)
{
  return a->region.bdev->file != NULL &&
    a->region.bdev->file == b->region.bdev->file;
}

static bool
overlap (const struct io_region *a, const struct io_region *b)
{
  return a->sector < b->sector + b->count && b->sector < a->sector + a->count;
}

/* Why A cannot be used beside B, or NULL. */
static char *
conflict (const struct part *a, const struct part *b)
{
  const struct io_region *ra = &a->region, *rb = &b->region;

  if (same_file (a, b) && !a->is_log && !b->is_log)
    return g_strdup_printf ("%s: is the same file as %s; name each file once, "
                            "since one loss would be that of both", a->name,
                            b->name);
  if (same_file (a, b) && overlap (ra, rb))
    return g_strdup_printf ("%s: has sectors %" PRIu64 " to %" PRIu64 ", and "
                            "%s has %" PRIu64 " to %" PRIu64 " of the same "
                            "device; give each its own with sector= and "
                            "count=", a->name, ra->sector,
                            ra->sector + ra->count - 1, b->name, rb->sector,
                            rb->sector + rb->count - 1);
  return NULL;
}

bool
part_take (const struct spec *spec, struct block_device *bdev,
           struct io_region *region, char **error)
{
  struct part *part, *other;
  char *wrong = NULL;

  if (!spec_resolve (spec, bdev, region, error))
    return false;
  part = new_part (spec, region);
  pthread_mutex_lock (&lock);
  for (other = parts; other != NULL && wrong == NULL; other = other->next)
    wrong = conflict (part, other);
  if (wrong == NULL) {
    part->next = parts;
    parts = part;
  }
  pthread_mutex_unlock (&lock);
  if (wrong == NULL)
    return true;
  free_part (part);
  *error = wrong;
  return false;
}

void
part_close (struct block_device *bdev)
{
  struct part **p, *part;

  pthread_mutex_lock (&lock);
  for (p = &parts; *p != NULL; p = &(*p)->next)
    if ((*p)->region.bdev == bdev) {
      part = *p;
      *p = part->next;
      free_part (part);
      break;
    }
  pthread_mutex_unlock (&lock);
  dm_bdev_close (bdev);
}
