/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What each block of a volume may hold while it is written, and after a
 * crash.  Of crash-load.c, which sees to it that one thread at a time is
 * in here.
 *
 * A volume has blocks of 4 KiB.  A write gives each of its blocks one
 * value: the number of the request and of the block, from which the whole
 * content follows; 0 stands for zeroes.  Time is a counter that goes up
 * with everything that begins or ends, so of two writes only one that
 * ended before the other began is known to have come first.
 *
 * A block has a list of values it may hold.  A value is
 *
 * - dead, when it has certainly been overwritten: a write that began after
 *   it had ended was acknowledged; or a read saw another value, both having
 *   been complete (so an outcome, once seen, stays);
 * - gone, when it will not come back by a crash either: it was dead when a
 *   flush began that was acknowledged since, or what overwrote it was
 *   acknowledged with FUA.
 *
 * A read may see what was not dead when it began; if the volume itself may lose
 * what was not flushed, what was not gone.  After a crash a block may hold
 * what was not gone, or, if only what was not acknowledged can get lost, what
 * was not dead.  A write that was in flight then may be there or not.
 */

#ifndef CRASH_MODEL_H
#define CRASH_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#define BLOCK 4096
#define BLOCK_BITS 24           /* so a volume has at most 64 GiB */

/* A change or a read. */
struct access {
  uint64_t id;                  /* of a write; 0: zeroes */
  uint64_t begin;
  uint64_t first, count;        /* blocks */
};

/* What may get lost while the volume is used. */
enum loss { LOSS_NOTHING, LOSS_UNFLUSHED };

extern void model_new (uint64_t blocks, enum loss loss);

/* Read what model_save has written; false if there is no such file. */
extern bool model_load (const char *file, uint64_t blocks, enum loss loss);

/* Write what the blocks may hold after a crash in which nothing that was
 * acknowledged got lost (KEPT), or nothing that was flushed.  Returns how
 * many of them may hold one thing or another.
 */
extern uint64_t model_save (const char *file, bool kept);

extern void model_free (void);

/* The number of a new write. */
extern uint64_t model_id (void);
extern void model_fill (const struct access *a, void *data);

/* MAY: it may have no effect, as a trim. */
extern void model_begin_change (struct access *a, bool may);
extern void model_end_change (struct access *a, bool success, bool fua);
extern void model_begin_read (struct access *a);
extern void model_end_read (struct access *a, const void *data);

extern uint64_t model_begin_flush (void);
extern void model_end_flush (uint64_t begin, bool success);

/* Since when are reads in flight?  NEVER: there are none. */
#define NEVER UINT64_MAX
extern void model_set_horizon (uint64_t (*oldest_read) (void));

extern void fail (const char *format, ...)
  __attribute__ ((__noreturn__, __format__ (__printf__, 1, 2)));

#endif /* CRASH_MODEL_H */
