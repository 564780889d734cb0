/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* A gate's lock owns the rest of it, and is a leaf.  A script belongs to
 * its mock, which locks it.
 */

#include <config.h>

#include <errno.h>
#include <time.h>

#include <glib.h>

#include "mock-script.h"

#define GATE_SECONDS 30

/*----------------------------------------------------------------------
 * Gates
 */

static void
wait_changed (struct mock_gate *gate, const char *what)
{
  struct timespec deadline;

  clock_gettime (CLOCK_REALTIME, &deadline);
  deadline.tv_sec += GATE_SECONDS;
  if (pthread_cond_timedwait (&gate->changed, &gate->lock,
                              &deadline) == ETIMEDOUT)
    g_error ("gate: %u operations arrived, %s", gate->arrived, what);
}

static void
pass_gate (struct mock_gate *gate)
{
  pthread_mutex_lock (&gate->lock);
  gate->arrived++;
  if (gate->arrived == gate->opens_at)
    gate->open = true;
  pthread_cond_broadcast (&gate->changed);
  while (!gate->open)
    wait_changed (gate, "it does not open");
  pthread_mutex_unlock (&gate->lock);
}

void
mock_gate_await (struct mock_gate *gate, unsigned int n)
{
  pthread_mutex_lock (&gate->lock);
  while (gate->arrived < n)
    wait_changed (gate, "more are awaited");
  pthread_mutex_unlock (&gate->lock);
}

void
mock_gate_open (struct mock_gate *gate)
{
  pthread_mutex_lock (&gate->lock);
  gate->open = true;
  pthread_cond_broadcast (&gate->changed);
  pthread_mutex_unlock (&gate->lock);
}

/*----------------------------------------------------------------------
 * Faults
 */

void
mock_script_add (struct mock_script *script, const struct mock_fault *fault)
{
  g_assert_cmpuint (script->n, <, MOCK_MAX_FAULTS);
  script->seen[script->n] = 0;
  script->faults[script->n++] = *fault;
}

static bool
touches (const struct mock_fault *fault, uint64_t offset, uint64_t length)
{
  return fault->length == 0 ||
    (offset < fault->offset + fault->length &&
     fault->offset < offset + length);
}

static bool
is_due (const struct mock_fault *fault, unsigned int nth)
{
  return nth >= fault->after &&
    (fault->times == 0 || nth - fault->after < fault->times);
}

static void
apply (const struct mock_fault *fault, struct mock_fate *fate)
{
  if (fault->gate != NULL)
    fate->gate = fault->gate;
  fate->msec += fault->msec;
  if (fate->error == 0)
    fate->error = fault->error;
  if (fault->shorten)
    fate->transfer = MIN (fate->transfer, fault->transfer);
}

static bool
ends_by (const struct mock_fault *fault, enum mock_op op, uint64_t offset,
         uint64_t length)
{
  return fault->until_written && op & (MOCK_WRITE | MOCK_PUNCH | MOCK_ZERO) &&
    touches (fault, offset, length);
}

struct mock_fate
mock_script_fate (struct mock_script *script, enum mock_op op,
                  uint64_t offset, uint64_t length)
{
  struct mock_fate fate = { .transfer = length };
  struct mock_fault *fault;
  unsigned int i;

  for (i = 0; i < script->n; i++) {
    fault = &script->faults[i];
    if (ends_by (fault, op, offset, length))
      fault->ops = 0;
    if (!(fault->ops & op) || !touches (fault, offset, length))
      continue;
    if (fault->error != 0 && offset < fault->offset &&
        op & (MOCK_READ | MOCK_WRITE))
      fate.transfer = MIN (fate.transfer, fault->offset - offset);
    else if (is_due (fault, script->seen[i]++))
      apply (fault, &fate);
  }
  return fate;
}

void
mock_fate_wait (const struct mock_fate *fate)
{
  struct timespec ts = {
    fate->msec / 1000, fate->msec % 1000 * 1000000
  };

  if (fate->gate != NULL)
    pass_gate (fate->gate);
  if (fate->msec > 0)
    while (clock_nanosleep (CLOCK_MONOTONIC, 0, &ts, &ts) == EINTR)
      ;
}
