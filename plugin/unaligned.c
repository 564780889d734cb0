/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The first request of its kind is logged in full, with the remedy; repeats
 * are counted and summed up in one line: when the next one comes after the
 * interval, and at the end.
 *
 * The lock owns the series.  It is held while a line is logged, so that
 * lines come in order; no other lock is taken under it.
 */

#include <config.h>

#include <inttypes.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>

#include <glib.h>

#include "failure-log.h"
#include "log.h"
#include "unaligned.h"

struct series {
  const char *op;               /* NULL: not used yet */
  gint64 begun_at;              /* the interval */
  uint64_t repeats;             /* in it, not logged */
};

/* read, write, discard, write zeroes, block status, cache */
static struct series all_series[6];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct series *
find_series (const char *op)
{
  size_t i = 0;

  while (all_series[i].op != NULL && strcmp (all_series[i].op, op) != 0) {
    i++;
    g_assert (i < G_N_ELEMENTS (all_series));
  }
  all_series[i].op = op;
  return &all_series[i];
}

static void
log_sum (struct series *s)
{
  if (s->repeats > 0)
    report_error ("%s: %" PRIu64 " more requests were not in whole blocks",
                  s->op, s->repeats);
  s->repeats = 0;
}

void
unaligned_add (const char *op, uint32_t count, uint64_t offset,
               unsigned int unit)
{
  gint64 now = g_get_monotonic_time ();
  struct series *s;

  pthread_mutex_lock (&lock);
  s = find_series (op);
  if (s->begun_at != 0 &&
      now - s->begun_at < FAILURE_LOG_INTERVAL * G_USEC_PER_SEC)
    s->repeats++;
  else {
    log_sum (s);
    s->begun_at = now;
    report_error ("%s of %" PRIu32 " bytes at offset %" PRIu64 " is not in "
                  "whole blocks of %u bytes; add --filter=blocksize for a "
                  "client that ignores the minimum block size",
                  op, count, offset, unit);
  }
  pthread_mutex_unlock (&lock);
}

void
unaligned_end (void)
{
  size_t i;

  pthread_mutex_lock (&lock);
  for (i = 0; i < G_N_ELEMENTS (all_series); i++)
    log_sum (&all_series[i]);
  pthread_mutex_unlock (&lock);
}
