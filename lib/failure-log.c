/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Repeats of the same failure (region, operation, errno) are summed up
 * in one line for the operation: when the next one comes after the
 * interval, and at the end.
 *
 * log->lock owns the series.  It is held while a line is logged, so that
 * lines come in order; no other lock of the library is taken under it.
 */

#include <config.h>

#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include <glib.h>

#include "failure-log.h"

#define NUM_OPS (DM_IO_WRITE_ZEROES + 1)

#define MAX_ERRNO 255

/* Failures of one kind of operation on one region. */
struct series {
  int64_t begun_at;             /* the interval, g_get_monotonic_time */
  uint64_t logged[MAX_ERRNO / 64 + 1]; /* the errnos logged in it, bits */
  uint64_t repeats;             /* of those, not logged */
  uint64_t first, last;         /* lowest and highest offset of these */
  int error;                    /* of the last */
};

struct failure_log {
  pthread_mutex_t lock;
  unsigned int n;
  char **names;
  struct series (*series)[NUM_OPS];
};

struct failure_log *
failure_log_new (unsigned int n)
{
  struct failure_log *log = g_new0 (struct failure_log, 1);

  pthread_mutex_init (&log->lock, NULL);
  log->n = n;
  log->names = g_new0 (char *, n);
  log->series = g_malloc0_n (n, sizeof log->series[0]);
  return log;
}

void
failure_log_set_name (struct failure_log *log, unsigned int region,
                      const char *name)
{
  pthread_mutex_lock (&log->lock);
  g_free (log->names[region]);
  log->names[region] = g_strdup (name);
  pthread_mutex_unlock (&log->lock);
}

const char *
failure_log_op_name (enum dm_io_op op)
{
  static const char *const names[NUM_OPS] = {
    [DM_IO_READ] = "read",
    [DM_IO_WRITE] = "write",
    [DM_IO_FLUSH] = "flush",
    [DM_IO_DISCARD] = "discard",
    [DM_IO_WRITE_ZEROES] = "write zeroes",
  };

  return names[op];
}

static void
log_sum (struct failure_log *log, unsigned int region, enum dm_io_op op)
{
  struct series *s = &log->series[region][op];

  if (s->repeats == 0)
    return;
  g_warning ("region %u (%s): %s failed %" PRIu64 " more times "
             "between offsets %" PRIu64 " and %" PRIu64 ", last with: %s",
             region, log->names[region], failure_log_op_name (op),
             s->repeats, s->first, s->last, g_strerror (s->error));
  s->repeats = 0;
}

static void
log_line (struct failure_log *log, const struct failure *f)
{
  g_autofree char *range = f->op == DM_IO_FLUSH ? g_strdup ("") :
    g_strdup_printf (" of %" PRIu64 " bytes at offset %" PRIu64,
                     f->length, f->offset);

  g_warning ("region %u (%s): %s%s failed: %s; %s",
             f->region, log->names[f->region], failure_log_op_name (f->op),
             range, g_strerror (f->error), f->consequence);
}

/* True if the errno has been logged in this interval; else it is taken
 * for logged from now on.
 */
static bool
logged (struct series *s, int error)
{
  unsigned int e = MIN ((unsigned int) error, MAX_ERRNO);
  uint64_t bit = UINT64_C (1) << e % 64;
  bool before = s->logged[e / 64] & bit;

  s->logged[e / 64] |= bit;
  return before;
}

static void
count (struct series *s, const struct failure *f)
{
  s->first = s->repeats == 0 ? f->offset : MIN (s->first, f->offset);
  s->last = s->repeats == 0 ? f->offset : MAX (s->last, f->offset);
  s->error = f->error;
  s->repeats++;
}

void
failure_log_add (struct failure_log *log, const struct failure *f)
{
  struct series *s = &log->series[f->region][f->op];
  int64_t now = g_get_monotonic_time ();

  pthread_mutex_lock (&log->lock);
  if (now - s->begun_at >= FAILURE_LOG_INTERVAL * G_USEC_PER_SEC) {
    log_sum (log, f->region, f->op);
    memset (s->logged, 0, sizeof s->logged);
    s->begun_at = now;
  }
  if (logged (s, f->error))
    count (s, f);
  else
    log_line (log, f);
  pthread_mutex_unlock (&log->lock);
}

void
failure_log_free (struct failure_log *log)
{
  unsigned int i, op;

  for (i = 0; i < log->n; i++)
    for (op = 0; op < NUM_OPS; op++)
      log_sum (log, i, op);
  pthread_mutex_destroy (&log->lock);
  for (i = 0; i < log->n; i++)
    g_free (log->names[i]);
  g_free (log->names);
  g_free (log->series);
  g_free (log);
}
