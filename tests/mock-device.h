/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* A block device of the tests' own, in memory.  It can be told to fail,
 * to do only part of a transfer or to wait; it records what is asked of
 * it; and it has a volatile cache, which loses a part of what was not
 * flushed at a simulated power cut.
 *
 * A test that breaks the rules of struct bdev_ops (unaligned iovecs, an
 * operation outside the device, a write to a read-only one) is aborted.
 *
 * No operation allocates memory, so that the mock also works in tests
 * where malloc fails.
 */

#ifndef DMIO_MOCK_DEVICE_H
#define DMIO_MOCK_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "block-device.h"
#include "mock-script.h"

/* Zero is a plain device: writable, any alignment, no wait, no punch.
 * It has the operations punch and zero; without can_punch or can_zero
 * they say -EOPNOTSUPP.
 */
struct mock_options {
  bool read_only;
  bool always_waits;
  bool can_punch;
  bool lies_about_punch;        /* says it can, until it is tried */
  bool can_zero;
  bool fua_by_flush;
  bool ring;                    /* has ring_prepare */
  bool has_extents;             /* what was never written is a hole */
  bool has_stamp;               /* its mtime is that of its last change */
  bool forgets;                 /* after a failed flush: that it has to write what it had
                                 * to, and shows it until the power is cut */
  size_t mem_align;             /* 0 is 1 */
  size_t max_trace;             /* events that are kept; 0 is 1024 */
};

/* A new device of SIZE bytes of zeroes, durable. */
extern struct block_device *mock_open (const char *name, uint64_t size,
                                       const struct mock_options *options);
extern void mock_close (struct block_device *bdev);

/* Add a line to its script, of at most MOCK_MAX_FAULTS, or end all. */
extern void mock_fault (struct block_device *bdev,
                        const struct mock_fault *fault);
extern void mock_clear_faults (struct block_device *bdev);

/* It fails everything, also what waits, until it is revived; or no longer. */
extern void mock_set_failed (struct block_device *bdev, bool failed);
/* bdev_revive says so before it succeeds: N times -EAGAIN; or always ERROR,
 * negative, if that is not 0.
 */
/* Called when it has been revived, before bdev_revive returns.  To be set before it fails. */
extern void mock_on_revival (struct block_device *bdev,
                             void (*revived) (void *data), void *data);
extern void mock_set_revive (struct block_device *bdev, unsigned int n,
                             int error);
/* How often it was called since. */
extern unsigned int mock_revives (struct block_device *bdev);

/* As though it had been closed and opened again. */
extern void mock_reopen (struct block_device *bdev);

/*----------------------------------------------------------------------
 * The trace
 */

/* One operation.  BEGIN and END are times of a clock that ticks at each
 * beginning and end on any mock, so two events of different mocks
 * overlap if each began before the other one's end.
 */
struct mock_event {
  enum mock_op op;
  bool fua;
  uint64_t offset, length;
  uint64_t begin, end;          /* end 0: not yet */
  ssize_t result;               /* bytes, 0 or a negative errno */
};

/* The events since the last mock_clear_trace, in the order of BEGIN.
 * No operation may be under way.
 */
extern const struct mock_event *mock_trace (struct block_device *bdev,
                                            size_t *n);
extern void mock_clear_trace (struct block_device *bdev);

/* How many of the events are one of OPS.  Counts also those that were
 * too many to be kept.
 */
extern unsigned int mock_count (struct block_device *bdev, unsigned int ops);

/* How many bytes were written, punched or zeroed in that time. */
extern uint64_t mock_changed (struct block_device *bdev);

/* Now, by the clock of the events. */
extern uint64_t mock_now (void);

/*----------------------------------------------------------------------
 * The contents
 */

/* The bytes as a read would see them.  No operation may be under way
 * that changes what is looked at.
 */
extern unsigned char *mock_data (struct block_device *bdev);
/* One of them, at any time. */
extern unsigned char mock_byte (struct block_device *bdev, uint64_t offset);

/* Write directly, durably, without any trace. */
extern void mock_set (struct block_device *bdev, uint64_t offset,
                      const void *buf, size_t length);

/* It shows no changes any more, as a device without stamps. */
extern void mock_hide_times (struct block_device *bdev);
/* Others than the library change it: its time too. */
extern void mock_touch (struct block_device *bdev, uint64_t mtime);
/* How many bytes are not holes. */
extern uint64_t mock_allocated (struct block_device *bdev);

/* From now on, or after N more operations that change or flush a mock, all
 * mocks fail, and nothing changes them; until there is power again.  So
 * what has happened on all of them up to some moment has, and nothing else.
 */
extern void mock_power_off (void);
extern void mock_power_off_after (unsigned int n);
extern void mock_power_on (void);
extern bool mock_power_is_off (void);

/* Lose the power: each sector written and not flushed since keeps its
 * new content or falls back to its last durable one, at random.
 */
extern void mock_power_cut (struct block_device *bdev, uint64_t seed);

#endif /* DMIO_MOCK_DEVICE_H */
