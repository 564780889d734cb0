/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The threads of the library: a queue of work and the workers that take
 * from it.  Nothing is allocated to queue work.
 */

#ifndef DMIO_WORKER_H
#define DMIO_WORKER_H

#include <pthread.h>
#include <stdbool.h>

/* Embedded in what is to be done.  The queue owns both links while the
 * work is queued.
 */
struct work {
  struct work *prev, *next;     /* both NULL: not queued */
  void (*run) (struct work *work);
};

/* pthread_create for the threads of the library: signals are for the program's
 * own, so none is delivered to these.
 */
extern int create_thread (pthread_t *thread, void *(*run) (void *),
                          void *arg);

/* Keep the workers until the matching put; the last put ends them, so
 * nothing may be queued then and it may not come from a worker.
 */
extern void workers_get (void);
extern void workers_put (void);

/* End all workers, of which none may be at work, so that the process can
 * fork; they are started again when they are needed.
 */
extern void workers_rest (void);

/* Queue the work for a worker.  False if there is no worker and none can
 * be started: the caller has to run it.
 */
extern bool worker_push (struct work *work);

/* Take the work back.  True if no worker had taken it yet: the caller
 * has to run it.
 */
extern bool worker_cancel (struct work *work);

#endif /* DMIO_WORKER_H */
