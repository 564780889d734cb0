/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* A queue and its workers.
 *
 * users_lock owns the number of users, and with it the start and the end
 * of the pool: it is held while the last user, or who wants them to rest,
 * waits for the workers to end.  pool.lock is taken under it.
 *
 * pool.lock owns the queue (also the links of queued work) and the
 * counters.  It is a leaf: no other lock is taken under it, and work is
 * run without it.
 *
 * A worker is started when work is queued and none is idle, up to
 * MAX_WORKERS; it then stays until the last workers_put or workers_rest.
 * That is all the sizing there is: a synchronous request does not depend on
 * a worker being free, since whoever waits for it runs what is still queued
 * of it (worker_cancel); an asynchronous one waits.
 *
 * The threads are started lazily, not by workers_get, so that devices
 * can be opened before a server forks, and used if workers_rest ends the
 * threads.
 */

#include <config.h>

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>

#include "worker.h"

/* Enough for each region of a request, or for a few requests of several
 * regions each, to wait for its device at the same time.
 */
#define MAX_WORKERS 64

static pthread_mutex_t users_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned int users;      /* workers_get less workers_put */

static struct {
  pthread_mutex_t lock;
  pthread_cond_t wake;          /* work was queued, or stop was set */
  struct work queue;            /* head of a ring */
  unsigned int queued;          /* length of the queue */
  unsigned int workers;         /* elements of threads in use */
  unsigned int idle;            /* of these, waiting for work */
  bool stop;
  pthread_t threads[MAX_WORKERS];
} pool = {
  .lock = PTHREAD_MUTEX_INITIALIZER,
  .wake = PTHREAD_COND_INITIALIZER,
  .queue = { .prev = &pool.queue, .next = &pool.queue },
};

/* The next three are called with the lock held. */

static void
link_work (struct work *work)
{
  work->prev = pool.queue.prev;
  work->next = &pool.queue;
  work->prev->next = work;
  work->next->prev = work;
  pool.queued++;
}

static void
unlink_work (struct work *work)
{
  work->prev->next = work->next;
  work->next->prev = work->prev;
  work->prev = work->next = NULL;
  pool.queued--;
}

static void *worker_main (void *unused);

int
create_thread (pthread_t *thread, void *(*run) (void *), void *arg)
{
  sigset_t all, old;
  int err;

  sigfillset (&all);
  pthread_sigmask (SIG_SETMASK, &all, &old);
  err = pthread_create (thread, NULL, run, arg);
  pthread_sigmask (SIG_SETMASK, &old, NULL);
  return err;
}

static void
start_worker (void)
{
  if (create_thread (&pool.threads[pool.workers], worker_main, NULL) == 0)
    pool.workers++;
}

static void *
worker_main (void *unused)
{
  struct work *work;

  pthread_mutex_lock (&pool.lock);
  for (;;) {
    while (pool.queued == 0 && !pool.stop) {
      pool.idle++;
      pthread_cond_wait (&pool.wake, &pool.lock);
      pool.idle--;
    }
    if (pool.queued == 0)
      break;
    work = pool.queue.next;
    unlink_work (work);
    pthread_mutex_unlock (&pool.lock);
    work->run (work);
    pthread_mutex_lock (&pool.lock);
  }
  pthread_mutex_unlock (&pool.lock);
  return NULL;
}

void
workers_get (void)
{
  pthread_mutex_lock (&users_lock);
  users++;
  pthread_mutex_unlock (&users_lock);
}

/* Called with users_lock held, so that no worker can be started. */
static void
end_workers (void)
{
  unsigned int i;

  pthread_mutex_lock (&pool.lock);
  assert (pool.queued == 0);
  pool.stop = true;
  pthread_cond_broadcast (&pool.wake);
  pthread_mutex_unlock (&pool.lock);

  for (i = 0; i < pool.workers; i++)
    pthread_join (pool.threads[i], NULL);

  pthread_mutex_lock (&pool.lock);
  pool.workers = 0;
  pool.stop = false;
  pthread_mutex_unlock (&pool.lock);
}

void
workers_put (void)
{
  pthread_mutex_lock (&users_lock);
  assert (users > 0);
  if (--users == 0)
    end_workers ();
  pthread_mutex_unlock (&users_lock);
}

void
workers_rest (void)
{
  pthread_mutex_lock (&users_lock);
  end_workers ();
  pthread_mutex_unlock (&users_lock);
}

bool
worker_push (struct work *work)
{
  bool accepted;

  pthread_mutex_lock (&pool.lock);
  if (pool.queued >= pool.idle && pool.workers < MAX_WORKERS)
    start_worker ();
  accepted = pool.workers > 0;
  if (accepted) {
    link_work (work);
    pthread_cond_signal (&pool.wake);
  }
  pthread_mutex_unlock (&pool.lock);
  return accepted;
}

bool
worker_cancel (struct work *work)
{
  bool queued;

  pthread_mutex_lock (&pool.lock);
  queued = work->next != NULL;
  if (queued)
    unlink_work (work);
  pthread_mutex_unlock (&pool.lock);
  return queued;
}
