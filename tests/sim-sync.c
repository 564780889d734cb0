/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* POSIX threads, locks, conditions and clocks as the library sees them:
 * the linker sends its calls here (--wrap).  A lock keeps its state in
 * the memory of the pthread_mutex_t; one that is all zero is unlocked, so
 * PTHREAD_MUTEX_INITIALIZER works.  Misuse is a finding.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include <glib.h>

#include "clock.h"
#include "sim.h"
#include "worker.h"

struct lock {
  struct sim_fiber *owner;
  unsigned int waiters;
};
_Static_assert (sizeof (struct lock) <= sizeof (pthread_mutex_t), "");

struct condition {
  unsigned int waiters;
};

static struct lock *
lock_of (pthread_mutex_t *mutex)
{
  return (struct lock *) mutex;
}

static void
acquire (struct lock *lock)
{
  if (lock->owner == sim_self ())
    sim_fail ("%s takes a lock that it holds", sim_fiber_name (sim_self ()));
  while (lock->owner != NULL) {
    lock->waiters++;
    sim_block (lock, SIM_NEVER, "lock");
    lock->waiters--;
  }
  lock->owner = sim_self ();
}

static void
release (struct lock *lock)
{
  if (lock->owner != sim_self ())
    sim_fail ("%s releases a lock that it does not hold",
              sim_fiber_name (sim_self ()));
  lock->owner = NULL;
  if (lock->waiters > 0)
    sim_wake (lock, true);
}

/*----------------------------------------------------------------------
 * Locks
 */

int sim_mutex_init (pthread_mutex_t *, const pthread_mutexattr_t *)
  __asm__ ("__wrap_pthread_mutex_init");
int
sim_mutex_init (pthread_mutex_t *mutex, const pthread_mutexattr_t *attr)
{
  memset (mutex, 0, sizeof *mutex);
  return 0;
}

int sim_mutex_destroy (pthread_mutex_t *)
  __asm__ ("__wrap_pthread_mutex_destroy");
int
sim_mutex_destroy (pthread_mutex_t *mutex)
{
  if (lock_of (mutex)->owner != NULL || lock_of (mutex)->waiters > 0)
    sim_fail ("a lock is destroyed while it is in use");
  return 0;
}

int sim_mutex_lock (pthread_mutex_t *) __asm__ ("__wrap_pthread_mutex_lock");
int
sim_mutex_lock (pthread_mutex_t *mutex)
{
  sim_yield ();
  acquire (lock_of (mutex));
  return 0;
}

int sim_mutex_trylock (pthread_mutex_t *)
  __asm__ ("__wrap_pthread_mutex_trylock");
int
sim_mutex_trylock (pthread_mutex_t *mutex)
{
  sim_yield ();
  if (lock_of (mutex)->owner != NULL)
    return EBUSY;
  acquire (lock_of (mutex));
  return 0;
}

int sim_mutex_unlock (pthread_mutex_t *)
  __asm__ ("__wrap_pthread_mutex_unlock");
int
sim_mutex_unlock (pthread_mutex_t *mutex)
{
  release (lock_of (mutex));
  sim_yield ();
  return 0;
}

/*----------------------------------------------------------------------
 * Conditions
 */

int sim_cond_init (pthread_cond_t *, const pthread_condattr_t *)
  __asm__ ("__wrap_pthread_cond_init");
int
sim_cond_init (pthread_cond_t *cond, const pthread_condattr_t *attr)
{
  memset (cond, 0, sizeof *cond);
  return 0;
}

int sim_cond_destroy (pthread_cond_t *)
  __asm__ ("__wrap_pthread_cond_destroy");
int
sim_cond_destroy (pthread_cond_t *cond)
{
  if (((struct condition *) cond)->waiters > 0)
    sim_fail ("a condition is destroyed while threads wait for it");
  return 0;
}

/* False: it timed out. */
static bool
wait_for (pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t until)
{
  struct condition *c = (struct condition *) cond;
  bool woken;

  if (sim_style.spurious > 0 &&
      sim_below (&sim_schedule, 1000) < sim_style.spurious) {
    release (lock_of (mutex));
    sim_yield ();
    acquire (lock_of (mutex));
    return true;
  }
  c->waiters++;
  release (lock_of (mutex));
  woken = sim_block (cond, until, "condition");
  c->waiters--;
  acquire (lock_of (mutex));
  return woken;
}

/* An absolute time, of either clock, in virtual time. */
static uint64_t
virtual_time (const struct timespec *t)
{
  uint64_t nsec = (uint64_t) t->tv_sec * NSEC_PER_SEC + t->tv_nsec;
  uint64_t epoch = sim_date () - sim_now;

  return nsec >= epoch / 2 ? nsec - epoch : nsec;
}

int sim_cond_wait (pthread_cond_t *, pthread_mutex_t *)
  __asm__ ("__wrap_pthread_cond_wait");
int
sim_cond_wait (pthread_cond_t *cond, pthread_mutex_t *mutex)
{
  wait_for (cond, mutex, SIM_NEVER);
  return 0;
}

int sim_cond_timedwait (pthread_cond_t *, pthread_mutex_t *,
                        const struct timespec *)
  __asm__ ("__wrap_pthread_cond_timedwait");
int
sim_cond_timedwait (pthread_cond_t *cond, pthread_mutex_t *mutex,
                    const struct timespec *until)
{
  return wait_for (cond, mutex, virtual_time (until)) ? 0 : ETIMEDOUT;
}

int sim_cond_clockwait (pthread_cond_t *, pthread_mutex_t *, clockid_t,
                        const struct timespec *)
  __asm__ ("__wrap_pthread_cond_clockwait");
int
sim_cond_clockwait (pthread_cond_t *cond, pthread_mutex_t *mutex,
                    clockid_t clock, const struct timespec *until)
{
  return wait_for (cond, mutex, virtual_time (until)) ? 0 : ETIMEDOUT;
}

int sim_cond_signal (pthread_cond_t *)
  __asm__ ("__wrap_pthread_cond_signal");
int
sim_cond_signal (pthread_cond_t *cond)
{
  sim_wake (cond, false);
  return 0;
}

int sim_cond_broadcast (pthread_cond_t *)
  __asm__ ("__wrap_pthread_cond_broadcast");
int
sim_cond_broadcast (pthread_cond_t *cond)
{
  sim_wake (cond, true);
  return 0;
}

/*----------------------------------------------------------------------
 * Threads
 */

int
create_thread (pthread_t *thread, void *(*run) (void *), void *arg)
{
  *thread = (pthread_t) sim_spawn (run, arg, "thread");
  sim_yield ();
  return 0;
}

int sim_pthread_create (pthread_t *, const pthread_attr_t *,
                        void *(*) (void *), void *)
  __asm__ ("__wrap_pthread_create");
int
sim_pthread_create (pthread_t *thread, const pthread_attr_t *attr,
                    void *(*run) (void *), void *arg)
{
  return create_thread (thread, run, arg);
}

int sim_pthread_join (pthread_t, void **) __asm__ ("__wrap_pthread_join");
int
sim_pthread_join (pthread_t thread, void **result)
{
  void *r = sim_join ((struct sim_fiber *) thread);

  if (result != NULL)
    *result = r;
  return 0;
}

/*----------------------------------------------------------------------
 * Clocks and random numbers
 */

int sim_clock_gettime (clockid_t, struct timespec *)
  __asm__ ("__wrap_clock_gettime");
int
sim_clock_gettime (clockid_t clock, struct timespec *t)
{
  uint64_t now = clock == CLOCK_MONOTONIC ? sim_now : sim_date ();

  t->tv_sec = now / NSEC_PER_SEC;
  t->tv_nsec = now % NSEC_PER_SEC;
  return 0;
}

gint64 sim_monotonic_time (void) __asm__ ("__wrap_g_get_monotonic_time");
gint64
sim_monotonic_time (void)
{
  return sim_now / 1000;
}

gint64 sim_real_time (void) __asm__ ("__wrap_g_get_real_time");
gint64
sim_real_time (void)
{
  return sim_date () / 1000;
}

void sim_usleep (gulong) __asm__ ("__wrap_g_usleep");
void
sim_usleep (gulong usec)
{
  sim_sleep (usec * UINT64_C (1000));
}

int sim_nanosleep (const struct timespec *, struct timespec *)
  __asm__ ("__wrap_nanosleep");
int
sim_nanosleep (const struct timespec *t, struct timespec *left)
{
  sim_sleep ((uint64_t) t->tv_sec * NSEC_PER_SEC + t->tv_nsec);
  return 0;
}

ssize_t sim_getrandom (void *, size_t, unsigned int)
  __asm__ ("__wrap_getrandom");
ssize_t
sim_getrandom (void *buf, size_t n, unsigned int flags)
{
  unsigned char *p = buf;
  size_t i;

  for (i = 0; i < n; i++)
    p[i] = sim_next (&sim_media) >> 56;
  return n;
}

/*----------------------------------------------------------------------
 * The library's log lines
 */

void sim_log (const gchar *, GLogLevelFlags, const gchar *, ...)
  __asm__ ("__wrap_g_log") G_GNUC_PRINTF (3, 4);
void
sim_log (const gchar *domain, GLogLevelFlags level, const gchar *fmt, ...)
{
  g_autofree char *line = NULL;
  va_list args;

  if (!sim_verbose && !(level & (G_LOG_LEVEL_ERROR | G_LOG_LEVEL_CRITICAL)))
    return;
  va_start (args, fmt);
  line = g_strdup_vprintf (fmt, args);
  va_end (args);
  sim_trace ("log: %s", line);
  if (level & (G_LOG_LEVEL_ERROR | G_LOG_LEVEL_CRITICAL))
    sim_fail ("%s", line);
}

/*----------------------------------------------------------------------
 * Checksums: any will do, if it is quick
 */

struct sum {
  uint64_t word[4];
};

GChecksum *sim_checksum_new (GChecksumType)
  __asm__ ("__wrap_g_checksum_new");
GChecksum *
sim_checksum_new (GChecksumType type)
{
  return g_malloc0 (sizeof (struct sum));
}

void sim_checksum_free (GChecksum *) __asm__ ("__wrap_g_checksum_free");
void
sim_checksum_free (GChecksum *checksum)
{
  g_free (checksum);
}

void sim_checksum_reset (GChecksum *) __asm__ ("__wrap_g_checksum_reset");
void
sim_checksum_reset (GChecksum *checksum)
{
  memset (checksum, 0, sizeof (struct sum));
}

void sim_checksum_update (GChecksum *, const guchar *, gssize)
  __asm__ ("__wrap_g_checksum_update");
void
sim_checksum_update (GChecksum *checksum, const guchar *data, gssize length)
{
  struct sum *sum = (struct sum *) checksum;
  uint64_t a = sum->word[0], b = sum->word[1], c = sum->word[2];
  uint64_t d = sum->word[3], word[4];

  g_assert (length % sizeof word == 0);
  for (; length > 0; length -= sizeof word, data += sizeof word) {
    memcpy (word, data, sizeof word);
    a = (a ^ word[0]) * UINT64_C (0x9e3779b97f4a7c15);
    b = (b ^ word[1]) * UINT64_C (0xbf58476d1ce4e5b9);
    c = (c ^ word[2]) * UINT64_C (0x94d049bb133111eb);
    d = (d ^ word[3]) * UINT64_C (0xd6e8feb86659fd93);
  }
  *sum = (struct sum) { { a ^ a >> 31, b ^ b >> 31, c ^ c >> 31,
                          d ^ d >> 31 } };
}

void sim_checksum_get_digest (GChecksum *, guint8 *, gsize *)
  __asm__ ("__wrap_g_checksum_get_digest");
void
sim_checksum_get_digest (GChecksum *checksum, guint8 *digest, gsize *length)
{
  memcpy (digest, checksum, sizeof (struct sum));
  *length = sizeof (struct sum);
}
