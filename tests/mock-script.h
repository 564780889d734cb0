/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What the operations of a mock-device suffer: the faults that a test
 * has written down for them, and gates at which they wait.
 */

#ifndef DMIO_MOCK_SCRIPT_H
#define DMIO_MOCK_SCRIPT_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a mock is asked to do. */
enum mock_op {
  MOCK_READ = 1 << 0,
  MOCK_WRITE = 1 << 1,
  MOCK_FLUSH = 1 << 2,
  MOCK_PUNCH = 1 << 3,
  MOCK_ZERO = 1 << 4,
  MOCK_EXTENTS = 1 << 5,        /* is in no trace */
  MOCK_ANY = MOCK_READ | MOCK_WRITE | MOCK_FLUSH | MOCK_PUNCH | MOCK_ZERO,
};

/* A place where operations wait, on one mock or on several.  It opens
 * by itself when OPENS_AT operations are there (0: never), or by
 * mock_gate_open, and then stays open.  Waiting too long aborts.
 */
struct mock_gate {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  unsigned int opens_at;
  unsigned int arrived;
  bool open;
};

#define MOCK_GATE_INIT(OPENS_AT)                                        \
  { .lock = PTHREAD_MUTEX_INITIALIZER,                                  \
    .changed = PTHREAD_COND_INITIALIZER, .opens_at = (OPENS_AT) }

/* Wait until N operations have arrived. */
extern void mock_gate_await (struct mock_gate *gate, unsigned int n);
extern void mock_gate_open (struct mock_gate *gate);

/* One line of the script.  It is for the operations OPS that touch
 * LENGTH bytes from OFFSET on; LENGTH 0 means anywhere.  Of those, the
 * first AFTER ones are spared, and the next TIMES ones (0: all) suffer
 * what else is set here: they wait, then fail or transfer less.
 *
 * An error inside a range is found as on a disk: a transfer that begins
 * before the range ends early, at the range, and is not counted.
 */
struct mock_fault {
  unsigned int ops;             /* enum mock_op */
  uint64_t offset, length;
  unsigned int after, times;
  bool until_written;           /* it ends when any of that is written */

  struct mock_gate *gate;       /* wait here */
  unsigned int msec;            /* and wait so long */
  int error;                    /* fail with this errno, or if that is 0: */
  bool shorten;                 /* transfer at most TRANSFER bytes; */
  size_t transfer;              /* 0 is the end of the file */
};

#define MOCK_MAX_FAULTS 16

/* The script of one mock.  The caller locks it. */
struct mock_script {
  unsigned int n;
  struct mock_fault faults[MOCK_MAX_FAULTS];
  unsigned int seen[MOCK_MAX_FAULTS]; /* operations that matched */
};

extern void mock_script_add (struct mock_script *script,
                             const struct mock_fault *fault);

/* What becomes of one operation. */
struct mock_fate {
  struct mock_gate *gate;
  unsigned int msec;
  int error;
  uint64_t transfer;            /* at most */
};

/* Count it, and look it up. */
extern struct mock_fate mock_script_fate (struct mock_script *script,
                                          enum mock_op op, uint64_t offset,
                                          uint64_t length);

/* Wait as long as it says, with the script unlocked. */
extern void mock_fate_wait (const struct mock_fate *fate);

#endif /* DMIO_MOCK_SCRIPT_H */
