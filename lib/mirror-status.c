/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What a mirror says about itself. */

#include <config.h>

#include <string.h>

#include <glib.h>

#include "mirror.h"

unsigned int
dm_mirror_num_legs (struct dm_mirror *m)
{
  return __atomic_load_n (&m->num_legs, __ATOMIC_ACQUIRE);
}

int
dm_mirror_find_leg (struct dm_mirror *m, const char *name)
{
  unsigned int i;

  for (i = 0; i < dm_mirror_num_legs (m); i++)
    if (g_strcmp0 (m->legs[i].name, name) == 0 ||
        g_strcmp0 (m->legs[i].id, name) == 0)
      return i;
  return -1;
}

static uint64_t
bytes_of (const struct dm_mirror *m, uint64_t chunks)
{
  return MIN (chunks * dm_log_chunk (m->log), m->sectors) *
    DM_IO_SECTOR_SIZE;
}

static uint64_t
count_unreconciled (struct dm_mirror *m)
{
  uint64_t end = mirror_chunks (m), n = 0, i;

  if (!__atomic_load_n (&m->unreconciled, __ATOMIC_ACQUIRE))
    return 0;
  for (i = dm_log_next_unreconciled (m->log, 0, end); i < end;
       i = dm_log_next_unreconciled (m->log, i + 1, end))
    n++;
  return n;
}

/* Called with state_lock. */
static void
leg_status (struct dm_mirror *m, unsigned int leg,
            struct dm_mirror_leg_status *status)
{
  const struct leg *l = &m->legs[leg];
  const char *reason = l->reason;

  if (reason == NULL && mirror_offline (m) & 1UL << leg)
    reason = "it cannot be reached";
  else if (reason == NULL && mirror_unflushed (m) & 1UL << leg)
    reason = "it may not have kept all that it shows";
  else if (reason == NULL && m->partial & 1UL << leg)
    reason = m->in_doubt & 1UL << leg ?
      "it is used, but for chunks where older writes may still land" :
      "it is used, but for chunks that are yet to be copied";
  status->name = g_strdup (l->name);
  status->state = l->state;
  status->by_user = l->by_user;
  status->reason = g_strdup (reason);
  if (m->log == NULL)
    return;
  status->out_of_sync = bytes_of (m, dm_log_lacking (m->log, leg));
  if (l->state == DM_MIRROR_RECOVERING)
    status->to_copy = MAX (bytes_of (m, l->to_copy), status->out_of_sync);
}

void
dm_mirror_get_status (struct dm_mirror *m, struct dm_mirror_status *status)
{
  unsigned int i;

  memset (status, 0, sizeof *status);
  status->size = m->sectors * DM_IO_SECTOR_SIZE;
  status->quorum = m->quorum;
  status->rate = __atomic_load_n (&m->rate, __ATOMIC_RELAXED);
  if (m->log != NULL) {
    status->chunk = dm_log_chunk (m->log) * DM_IO_SECTOR_SIZE;
    status->to_reconcile = bytes_of (m, count_unreconciled (m));
    status->log_copies = dm_log_copies (m->log, &status->log_copies_all);
    for (i = 0; i < status->log_copies_all; i++)
      dm_log_get_copy (m->log, i, &status->copies[i]);
    status->uuid = dm_log_uuid (m->log);
  }
  pthread_mutex_lock (&m->state_lock);
  status->num_legs = m->num_legs;
  status->in_sync = COUNT (mirror_in_sync (m));
  for (i = 0; i < m->num_legs; i++)
    leg_status (m, i, &status->legs[i]);
  pthread_mutex_unlock (&m->state_lock);
}

void
dm_mirror_status_clear (struct dm_mirror_status *status)
{
  unsigned int i;

  for (i = 0; i < status->num_legs; i++) {
    g_free (status->legs[i].name);
    g_free (status->legs[i].reason);
  }
}

bool
dm_mirror_is_in_sync (struct dm_mirror *m)
{
  return COUNT (mirror_in_sync (m)) == dm_mirror_num_legs (m) &&
    mirror_offline (m) == 0 &&
    !__atomic_load_n (&m->unreconciled, __ATOMIC_ACQUIRE);
}
